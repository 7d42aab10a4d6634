"""A server that may be running: whether it answers, is ready, and knows the key; and the port."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from uuid import uuid4

from prefixmux.cli.checks.finding import Finding
from prefixmux.client import Client
from prefixmux.errors import (
    APIConnectionError,
    AuthenticationError,
    NotFoundError,
    PermissionDeniedError,
    PrefixmuxError,
)

WRONG = "Is it a prefixmux server?"
MAKE = "`prefixmux keys create --store DIR --tenant T --scope ...` makes keys."


def server(client: Client, url: str, *, asked: bool, has_key: bool) -> Iterator[Finding]:
    """`asked`: the user named this server, so that it has to be there."""
    try:
        health = client.health()
    except APIConnectionError:
        advice = "Start one (prefixmux serve MODEL), or name yours with --server."
        yield Finding("server", "fail" if asked else "warn", f"nothing answers at {url}", advice)
        return
    except PrefixmuxError as error:
        yield Finding("server", "fail", str(error), WRONG)
        return
    if health.ready:
        yield Finding("server", "ok", f"{url} is ready")
    else:
        advice = "Wait while it starts; else see its log."
        shown = f"{url} is not ready: {health.reason or health.status}"
        yield Finding("server", "fail", shown, advice)
    yield from _key(client, has_key=has_key)


def _key(client: Client, *, has_key: bool) -> Iterator[Finding]:
    try:
        scopes = [name for name, allowed in _scopes(client) if allowed]
    except AuthenticationError:
        shown = "the server does not know this key" if has_key else "the server asks for a key"
        yield Finding("key", "fail", shown, f"Set PREFIXMUX_API_KEY to a valid one. {MAKE}")
    except PrefixmuxError as error:
        yield Finding("key", "warn", f"its scopes are not known: {error}", WRONG)
    else:
        shown = f"may {', '.join(scopes)}" if scopes else "valid, but may do nothing here"
        yield Finding("key", "ok", shown) if scopes else Finding("key", "warn", shown, MAKE)


def _scopes(client: Client) -> Iterator[tuple[str, bool]]:
    """Asked for what no server has, so that nothing is done: refused for the scope, or for the
    task."""
    nothing = uuid4().hex
    yield "generate", _allowed(lambda: client.generate(nothing, "x", max_new_tokens=1))
    yield "read", _allowed(lambda: client.prefixes.get(nothing))
    yield "write", _allowed(lambda: client.prefixes.activate(nothing, 1))


def _allowed(call: Callable[[], object]) -> bool:
    try:
        call()
    except PermissionDeniedError:
        return False
    except NotFoundError:
        return True
    return True


def port(host: str, number: int) -> Iterator[Finding]:
    """Whether `serve` could listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as listening:
            if os.name == "posix":
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((host, number))
    except OSError as error:
        advice = "If that is not your server, choose another --host or --port for `serve`."
        shown = f"{host}:{number} cannot be bound ({error.strerror})"
        yield Finding("port", "warn", shown, advice)
    else:
        yield Finding("port", "ok", f"{host}:{number} is free")
