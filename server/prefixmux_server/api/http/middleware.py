"""Around every request: its id, tenant, origin, place in the drain, and the net for failures.

Before routing, so that without a key every path answers alike, known or not. Plain ASGI, so that
a client's disconnect reaches the routes. Never logs bodies, answers or keys.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
import traceback
from collections.abc import Callable
from typing import TypeAlias
from urllib.parse import unquote

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prefixmux_server.api.http import problems
from prefixmux_server.api.http.origin import refuse_cross_site, refuse_rebound
from prefixmux_server.api.ui.identity import SIGN_IN, key_of
from prefixmux_server.errors import STATUS_OF_CODE, Forbidden, PrefixmuxServerError
from prefixmux_server.service.lifecycle import Lifecycle, draining
from prefixmux_server.service.tenants.keys import KeyService
from prefixmux_server.service.tenants.tenant import Tenant
from prefixmux_store.errors import StoreError

SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
# Answered without a key, and also while the server drains. Whole paths as routing sees them: what
# is not here is closed, whatever a route says.
OPEN_PATHS = frozenset({"/health/live", "/health/ready", "/version", "/docs", "/openapi.json"})
# Need a key, and are answered while the server drains: they do no work, and are the last to see it.
DRAINING_PATHS = frozenset({"/metrics"})

HttpObserver: TypeAlias = Callable[[str, str | None, int, float], None]
DenialObserver: TypeAlias = Callable[[str, Tenant, str, str | None], None]
# The status of an answer whose client had left before it began.
NO_ANSWER = 499


class Frame:
    """The outermost layer of ours. `open_paths` need no key; `told` hears of each answer: method,
    template of the route (None: no route), status, seconds. `denied` hears who got a 403: id of the
    request, tenant, method, route. `any_host`: names that are not this machine's are served
    without a key, too."""

    def __init__(
        self,
        app: ASGIApp,
        lifecycle: Lifecycle,
        keys: KeyService,
        told: HttpObserver,
        denied: DenialObserver,
        open_paths: frozenset[str] = OPEN_PATHS,
        any_host: bool = False,
    ) -> None:
        self._app = app
        self._lifecycle = lifecycle
        self._keys = keys
        self._told = told
        self._denied = denied
        self._open_paths = open_paths
        self._any_host = any_host
        self._log = structlog.get_logger("prefixmux.http")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, method = _request_id(scope), scope["method"]
        # A copy: the server below goes by the method that the client sent.
        scope = {**scope, "path": _path(scope), "method": "GET" if method == "HEAD" else method}
        scope["state"] = {**scope.get("state", {}), "request_id": request_id, "tenant": None}
        reply = Reply(send, request_id, bare=method == "HEAD")
        started = time.monotonic()
        await self._serve(scope, receive, reply)
        route, seconds = getattr(scope.get("route"), "path", None), time.monotonic() - started
        self._told(method, route, reply.status or NO_ANSWER, seconds)
        tenant: Tenant | None = scope["state"]["tenant"]
        if reply.status == STATUS_OF_CODE[Forbidden.code] and tenant is not None:
            self._denied(request_id, tenant, method, route)
        self._log.info(
            "request",
            request_id=request_id,
            method=method,
            route=route,
            status=reply.status,
            **_who(tenant),
            seconds=round(seconds, 4),
        )

    async def _serve(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        headers = Headers(scope=scope)
        try:
            named = scope["method"], scope["path"]
            if scope["path"] in self._open_paths or named == SIGN_IN:
                refuse_cross_site(scope["method"], headers)
                await self._app(scope, receive, reply)
                return
            tenant = self._keys.tenant_of(key_of(scope["path"], headers))
            scope["state"]["tenant"] = tenant
            refuse_cross_site(scope["method"], headers)
            if tenant.key_id is None and not self._any_host:
                refuse_rebound(headers)
            await self._accepted(scope, receive, reply)
        except ClientDisconnect:
            return
        except (PrefixmuxServerError, StoreError) as error:
            failure = problems.response(problems.typed(error), reply.request_id)
            await failure(scope, receive, reply)
        except Exception as error:  # noqa: BLE001 - the last net: the client learns nothing of it
            self._log.error("failed", request_id=reply.request_id, **_where(error))
            if reply.status is None:
                failure = problems.response(problems.typed(error), reply.request_id)
                await failure(scope, receive, reply)

    async def _accepted(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        if scope["path"] in DRAINING_PATHS:
            await self._app(scope, receive, reply)
            return
        with self._lifecycle.accept():
            try:
                await self._app(scope, receive, reply)
            except asyncio.CancelledError:
                # The server below gives up what outlasts the end of the drain.
                if reply.status is None and self._lifecycle.draining:
                    raise draining() from None
                raise


class Reply:
    """Sends an answer with its request id and remembers its status; if `bare`, without body."""

    def __init__(self, send: Send, request_id: str, *, bare: bool) -> None:
        self._send = send
        self._bare = bare
        self.request_id = request_id
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.request_id
            # A browser takes what tenants have stored for nothing but what it is said to be.
            headers["x-content-type-options"] = "nosniff"
        elif self._bare:
            message = {**message, "body": b""}
        await self._send(message)


def _request_id(scope: Scope) -> str:
    sent = Headers(scope=scope).get("x-request-id", "")
    return sent if SANE_ID.fullmatch(sent) else secrets.token_hex(16)


def _who(tenant: Tenant | None) -> dict[str, object]:
    return {} if tenant is None else {"tenant": tenant.name, "key_id": tenant.key_id}


def _path(scope: Scope) -> str:
    """The path with `%2F` left as it is: it is part of a name, never a separator."""
    raw: bytes = scope.get("raw_path") or b""
    if b"%2f" not in raw.lower():
        return str(scope["path"])
    segments = raw.partition(b"?")[0].decode("latin-1").split("/")
    return "/".join(unquote(segment).replace("/", "%2F") for segment in segments)


def _where(error: Exception) -> dict[str, object]:
    """Type and place only: an exception's own text may quote a prompt."""
    frames = traceback.extract_tb(error.__traceback__)
    return {
        "error": type(error).__name__,
        "at": [f"{frame.name}:{frame.lineno}" for frame in frames[-6:]],
    }
