"""HTTP/1.1 as uvicorn speaks it, within limits, and with refusals in the shape of our errors.

uvicorn bounds neither how long a head may take to arrive, nor how long an answer may take to be
read, nor the number of connections. Bodies that a route reads have their own deadline in
`body.py`; those that no route reads end here.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from dataclasses import dataclass
from typing import Any

import h11
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from prefixmux_server.api.http import problems
from prefixmux_server.api.http.middleware import HttpObserver
from prefixmux_server.api.http.parser import Parser
from prefixmux_server.errors import InvalidRequest, Overloaded, PrefixmuxServerError

# Connections past the limit that are still told why; those behind them are dropped unheard.
TOLD = 64
PROBES = ("/health/live", "/health/ready")
LINGER_S = 2.0
# What a reader has to take at least.
LEAST_BYTES_PER_S = 1024
MALFORMED = "This is not HTTP/1.1 as the server understands it; check the client."
LARGE_HEAD = "The request line and headers are too large; send fewer and shorter ones."
LATE = "The request took too long to arrive; send it again."


@dataclass(frozen=True)
class Limits:
    """`receive_s` is for a head, or the rest of a body that nobody reads; `send_s` for an answer
    that the client does not take."""

    connections: int = 1024
    receive_s: float = 10.0
    send_s: float = 30.0


class BoundedProtocol(H11Protocol):
    """One connection. `told` hears of what the app never does."""

    conn: Parser

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: Limits,
        told: HttpObserver,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = Parser()
        self._limits = limits
        self._told = told
        self._receiving: asyncio.TimerHandle | None = None
        self._sending: asyncio.TimerHandle | None = None
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            self._past_the_limit()
        self._receiving = self.loop.call_later(self._limits.receive_s, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._receiving, self._sending):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._refused:
            super().data_received(data)

    def handle_events(self) -> None:
        super().handle_events()
        if not self._refused:
            self._expect()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._expect()
        self._watch_sending()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_sending()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
        if self.cycle is None or self.cycle.response_complete:
            self._watch_sending()

    def send_400_response(self, msg: str) -> None:
        """Called while the parser's error is handled."""
        hint = getattr(sys.exception(), "error_status_hint", 400)
        if hint != 431:
            self._refuse(400, InvalidRequest(MALFORMED))
        else:
            in_line = self.conn.our_state is h11.IDLE and b"\n" not in self.conn.unread
            self._refuse(414 if in_line else 431, InvalidRequest(LARGE_HEAD))

    def _past_the_limit(self) -> None:
        """Makes room by closing a connection that waits for its next request; if there is none,
        this one is told so, or dropped."""
        others = (other for other in self.connections if isinstance(other, BoundedProtocol))
        if (other := next(filter(_is_idle, others), None)) is not None:
            other.timeout_keep_alive_handler()
        elif len(self.connections) > self._limits.connections + TOLD:
            self.transport.abort()
        else:
            self.app = self._overloaded

    async def _overloaded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """In place of the app. Probes are let through, or a busy server would be taken for dead."""
        if scope["path"] in PROBES:
            await self.config.loaded_app(scope, receive, send)
        else:
            error = Overloaded("There are too many connections; close some, or try again later.")
            self._told(scope["method"], None, error.http_status, 0.0)
            await _response(error)(scope, receive, send)

    def _expect(self) -> None:
        """Times what has to arrive next, if anything has to."""
        ours, theirs = self.conn.our_state, self.conn.their_state
        in_head = theirs is h11.IDLE and bool(self.conn.unread)
        unread_body = ours is h11.DONE and theirs is h11.SEND_BODY
        if not (in_head or unread_body):
            if self._receiving is not None:
                self._receiving.cancel()
            self._receiving = None
        elif self._receiving is None:
            self._receiving = self.loop.call_later(self._limits.receive_s, self._late)

    def _late(self) -> None:
        if self.conn.their_state is h11.IDLE and self.conn.unread:
            self._refuse(408, InvalidRequest(LATE))
        else:
            self.transport.close()
        self._watch_sending()

    def _refuse(self, status: int, error: PrefixmuxServerError) -> None:
        """Answers for the app, and ends the connection: a little later, since one that is closed
        with bytes unread is reset, and the client would not see the answer."""
        self._refused = True
        if self._receiving is not None:
            self._receiving.cancel()
        self._told("", None, status, 0.0)
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        answer = _response(error)
        for event in (
            h11.Response(status_code=status, headers=answer.raw_headers),
            h11.Data(data=bytes(answer.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.write_eof()
        self._receiving = self.loop.call_later(LINGER_S, self.transport.close)
        self._watch_sending()

    def _watch_sending(self) -> None:
        left = self.transport.get_write_buffer_size()
        if left and self._sending is None:
            most = left - self._limits.send_s * LEAST_BYTES_PER_S
            self._sending = self.loop.call_later(self._limits.send_s, self._check_sent, most)

    def _check_sent(self, most: float) -> None:
        """Drops a client that left more than `most` bytes of its answer where they are."""
        self._sending = None
        if self.transport.get_write_buffer_size() > max(most, 0):
            self.transport.abort()
        else:
            self._watch_sending()


def _is_idle(connection: BoundedProtocol) -> bool:
    return (
        connection.timeout_keep_alive_task is not None
        and not connection.transport.is_closing()
        and not connection.conn.unread
    )


def _response(error: PrefixmuxServerError) -> Response:
    request_id = secrets.token_hex(16)
    headers = {"x-request-id": request_id, "connection": "close"}
    return problems.response(error, request_id, headers)
