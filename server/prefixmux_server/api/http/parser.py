"""h11's parser of requests, made to refuse what is legal but hostile or not clear.

Heads of too many fields, a length told in two ways, bodies in crumbs: each crumb costs what a
full piece does.
"""

from __future__ import annotations

import h11

MAX_HEADERS = 100
MAX_HEAD_BYTES = 64 * 1024
# A sender that is merely slow sends some small pieces; nobody sends thousands of them.
FREE_PIECES = 1024
LEAST_PIECE_BYTES = 64


class Parser(h11.Connection):
    """Of one connection, the server's side. Raises `h11.RemoteProtocolError` as its base does."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MAX_HEAD_BYTES)
        self._pieces = 0
        self._bytes = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._pieces, self._bytes = 0, 0
            _check_head(event)
        elif isinstance(event, h11.Data):
            self._pieces += 1
            self._bytes += len(event.data)
            self._check_pieces()
        return event

    @property
    def unread(self) -> bytes:
        """Received, and not yet an event."""
        return self.trailing_data[0]

    def _check_pieces(self) -> None:
        if self._pieces > FREE_PIECES and self._bytes < self._pieces * LEAST_PIECE_BYTES:
            raise h11.RemoteProtocolError("body in crumbs")


def _check_head(request: h11.Request) -> None:
    names = [name for name, _ in request.headers]
    size = sum(len(name) + len(value) for name, value in request.headers)
    if len(names) > MAX_HEADERS or size + len(request.target) > MAX_HEAD_BYTES:
        raise h11.RemoteProtocolError("head too large", error_status_hint=431)
    if b"transfer-encoding" in names and (
        b"content-length" in names or request.http_version != b"1.1"
    ):
        raise h11.RemoteProtocolError("length told in two ways")
