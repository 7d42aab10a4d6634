"""Reading a multipart form: bounded, to its very end, its text as it was sent.

Knows no field of any route.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from email.message import Message

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from prefixmux_server.api.http.body import in_time, limited
from prefixmux_server.errors import InvalidRequest

# Boundaries, part headers and the small fields of a form, beside its files.
FORM_OVERHEAD = 64 * 1024
MAX_FILES = 2
MAX_FIELDS = 8
# Above what any field may be, so that its own check can say what is wrong with it.
MAX_FIELD_BYTES = 1 << 20


async def read_form(request: Request, limit: int, too_large: Exception) -> FormData:
    """A form whose files have at most `limit` bytes together; its owner closes it.

    Its texts stand for the bytes that were sent: `text_of` decodes them. Raises `too_large`,
    `InvalidRequest`.
    """
    pieces = limited(request, limit + FORM_OVERHEAD, too_large)
    try:
        async with in_time(request, limit):
            return await _Parser(_headers(request), pieces).parse()
    except (MultiPartException, KeyError, UnicodeDecodeError, LookupError) as error:
        raise InvalidRequest("The multipart form could not be read.") from error


def text_of(form: FormData, name: str) -> str | None:
    """None if it was not sent. Raises `InvalidRequest` if it is a file or not UTF-8."""
    part = form.get(name)
    if part is None:
        return None
    if isinstance(part, UploadFile):
        raise InvalidRequest("This field is text, not a file.", param=name)
    try:
        return part.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest("This field is not UTF-8.", param=name) from None


async def bytes_of(form: FormData, name: str) -> bytes | None:
    """None if it was not sent."""
    part = form.get(name)
    if isinstance(part, UploadFile):
        return await part.read()
    return None if part is None else part.encode("latin-1")


class _Parser(MultiPartParser):
    """A body that ends before the form does is refused; the library takes what has come."""

    def __init__(self, headers: Headers, pieces: AsyncGenerator[bytes, None]) -> None:
        super().__init__(
            headers,
            self._to_its_end(pieces),
            max_files=MAX_FILES,
            max_fields=MAX_FIELDS,
            max_part_size=MAX_FIELD_BYTES,
        )
        self._ended = False

    def on_end(self) -> None:
        self._ended = True

    async def _to_its_end(self, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for piece in pieces:
            yield piece
        if not self._ended:
            raise InvalidRequest("The multipart form breaks off; send all of it again.")


def _headers(request: Request) -> Headers:
    """Latin-1 gives every byte a character, so that no byte is lost whatever was claimed."""
    _, options = parse_options_header(request.headers["content-type"])
    boundary = options[b"boundary"].decode("ascii")
    message = Message()
    message.add_header("content-type", "multipart/form-data", boundary=boundary, charset="latin-1")
    return Headers({"content-type": message["content-type"]})
