"""From the bytes of an upload request to an `Upload`: multipart forms and raw files.

Knows headers and form fields; what is in the files is the store's.
"""

from __future__ import annotations

import base64
import binascii
import re

from fastapi import Request
from starlette.datastructures import FormData

from prefixmux_server.api.body import media_type, read, refuse_encoding
from prefixmux_server.api.forms import bytes_of, read_form, text_of
from prefixmux_server.errors import InvalidRequest, UnsupportedMediaType
from prefixmux_server.service.upload import NativeFile, PeftFiles, Upload
from prefixmux_store.errors import PrefixTooLarge
from prefixmux_store.names import check_task_id

MAX_DESCRIPTION = 1000
FILES = ("file", "adapter_config", "adapter_model")
FIELDS = ("task_id", "activate", "description", "sha256", "task_index")
SHA256 = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})")
INDEX = re.compile(r"[0-9]{1,6}", re.ASCII)
# Such as a terminal that lists descriptions would obey.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# A member of a dictionary (RFC 9651): a key, bytes, and parameters, which say nothing here.
DIGEST = re.compile(
    r"""[ \t]*+ (?P<key>[a-z*][a-z0-9_.*-]*+) = :(?P<bytes>[A-Za-z0-9+/=]*+):
    (?: [ ]*+;[ ]*+ [a-z*][a-z0-9_.*-]*+ (?: = (?: "(?:[^"\\]|\\["\\])*+" | [^\s",;]++ ) )? )*+
    [ \t]*+ (?P<comma>,?)""",
    re.VERBOSE,
)


async def raw_upload(request: Request, task_id: str, limit: int) -> Upload:
    """`PUT`: the body is a native file of at most `limit` bytes."""
    check_task_id(task_id)
    if media_type(request) not in ("", "application/octet-stream"):
        raise UnsupportedMediaType("Send the native file as application/octet-stream.")
    create_only = _create_only(request.headers.get("if-none-match"))
    digest = _content_digest(request.headers.get("content-digest"))
    data = await read(request, limit, PrefixTooLarge(limit))
    return Upload(task_id, NativeFile(data, digest), create_only=create_only)


async def form_upload(request: Request, limit: int) -> Upload:
    """`POST`: a multipart form whose files have at most `limit` bytes together."""
    if media_type(request) != "multipart/form-data":
        raise UnsupportedMediaType("Send multipart/form-data, or PUT the raw file to its task.")
    refuse_encoding(request)
    form = await read_form(request, limit, PrefixTooLarge(limit))
    try:
        return await _upload(form, limit)
    finally:
        await form.close()


async def _upload(form: FormData, limit: int) -> Upload:
    _check_names(form)
    task_id = check_task_id(text_of(form, "task_id") or "")
    activate = _flag(form, "activate")
    description = _description(form)
    content = await _content(form)
    _check_size(content, limit)
    return Upload(task_id, content, activate, description, task_index=_index(form))


def _check_names(form: FormData) -> None:
    seen: set[str] = set()
    for name in (name for name, _ in form.multi_items()):
        if name not in FILES + FIELDS:
            raise InvalidRequest("The form has a field that is not known; see /docs.")
        if name in seen:
            raise InvalidRequest("The form has this field twice.", param=name)
        seen.add(name)


async def _content(form: FormData) -> NativeFile | PeftFiles:
    native = await bytes_of(form, "file")
    config, model = await bytes_of(form, "adapter_config"), await bytes_of(form, "adapter_model")
    if native is not None and config is None and model is None:
        return NativeFile(native, _digest(form))
    if native is None and config is not None and model is not None:
        if text_of(form, "sha256") is not None:
            raise InvalidRequest("sha256 is of `file`; leave it out here.", param="sha256")
        return PeftFiles(config, model)
    raise InvalidRequest(
        "Send either `file`, or `adapter_config` and `adapter_model`.", param="file"
    )


def _check_size(content: NativeFile | PeftFiles, limit: int) -> None:
    if isinstance(content, NativeFile):
        size = len(content.data)
    else:
        size = len(content.adapter_config) + len(content.adapter_model)
    if size > limit:
        raise PrefixTooLarge(limit)


def _flag(form: FormData, name: str) -> bool:
    text = text_of(form, name)
    if text not in (None, "true", "false"):
        raise InvalidRequest('This is "true" or "false".', param=name)
    return text != "false"


def _index(form: FormData) -> int | None:
    text = text_of(form, "task_index")
    if text is not None and not INDEX.fullmatch(text):
        raise InvalidRequest("This is a number from 0.", param="task_index")
    return None if text is None else int(text)


def _description(form: FormData) -> str | None:
    text = text_of(form, "description")
    if text is not None and (len(text) > MAX_DESCRIPTION or CONTROL.search(text)):
        raise InvalidRequest(
            f"A description is one line of at most {MAX_DESCRIPTION} characters, none of them"
            " control characters.",
            param="description",
        )
    return text


def _digest(form: FormData) -> str | None:
    text = text_of(form, "sha256")
    if text is None:
        return None
    if (match := SHA256.fullmatch(text)) is None:
        raise InvalidRequest("A sha256 has 64 hexadecimal digits.", param="sha256")
    return f"sha256:{match[1].lower()}"


def _content_digest(header: str | None) -> str | None:
    """The sha-256 of a `Content-Digest` (RFC 9530); other algorithms are passed over."""
    if header is None:
        return None
    digests, at, more = {}, 0, True
    while more:
        if (match := DIGEST.match(header, at)) is None:
            raise _bad_digest()
        digests[match["key"]] = match["bytes"]
        at, more = match.end(), bool(match["comma"])
    if at != len(header):
        raise _bad_digest()
    return _decoded(digests["sha-256"]) if "sha-256" in digests else None


def _decoded(encoded: str) -> str:
    try:
        raw = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise _bad_digest() from None
    if len(raw) != 32:
        raise _bad_digest()
    return f"sha256:{raw.hex()}"


def _bad_digest() -> InvalidRequest:
    return InvalidRequest(
        "Write it as sha-256=:<base64>: (RFC 9530).", param="headers.content-digest"
    )


def _create_only(header: str | None) -> bool:
    if header not in (None, "*"):
        raise InvalidRequest("Only * is known here.", param="headers.if-none-match")
    return header == "*"
