"""The listening socket and uvicorn on it. Signals, the drain and the engine are `main.py`'s."""

from __future__ import annotations

import asyncio
import ipaddress
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import cast

import uvicorn
from fastapi import FastAPI

from prefixmux_server.api.http.middleware import HttpObserver
from prefixmux_server.api.http.protocol import TOLD, BoundedProtocol, Limits
from prefixmux_server.errors import UsageError

BACKLOG = 2048
KEEP_ALIVE_S = 75
# What was not answered by the end of the drain has been cut before; this is for sending that.
LAST_WORDS_S = 2
# Beside connections: the store's files, the pipes, what libraries keep open.
OTHER_FILES = 256


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn would raise the signal again once it is done, and so spoil the exit status."""
        yield


class BindError(Exception):
    """The address is taken, or not of this machine."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"{host}:{port}")
        self.url = f"{host}:{port}"


def bind(host: str, port: int) -> socket.socket:
    """Raises `BindError`."""
    try:
        return _bind(host, port)
    except OSError as error:
        raise BindError(host, port) from error


def _bind(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except BaseException:
        listening.close()
        raise
    return listening


def url_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether every address of `host` is reached from this machine only.

    Raises `UsageError` if it has none.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--host: no address is known of {host!r}; choose another.") from error
    return all(ipaddress.ip_address(str(entry[4][0])).is_loopback for entry in found)


def allow_connections(wanted: int) -> int:
    """Let the process have so many open. Returns how many it may have, which can be fewer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = wanted + TOLD + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < files:
        soft = files if hard == resource.RLIM_INFINITY else min(files, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(min(wanted, soft - TOLD - OTHER_FILES), 1)
    return wanted


@asynccontextmanager
async def serving(
    app: FastAPI, listening: socket.socket, limits: Limits, told: HttpObserver
) -> AsyncIterator[None]:
    """Answers requests while the context is open; on leaving it no new ones are taken and those
    under way are waited for briefly. `told` hears of requests that are refused before the app."""
    server = _Server(
        uvicorn.Config(
            app,
            # On h11, which is strict and bounds heads; httptools does not.
            http=cast(type[asyncio.Protocol], partial(BoundedProtocol, limits=limits, told=told)),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=LAST_WORDS_S,
        )
    )
    running = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield
    finally:
        server.should_exit = True
        await running
