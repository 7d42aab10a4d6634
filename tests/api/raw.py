"""The application on a real socket of this process, and clients that write bytes as they please."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI

from prefixmux_server.api.http.protocol import Limits
from prefixmux_server.api.http.server import bind, serving

# Of a test that waits for what the server does; not a speed that is asked for.
PATIENCE_S = 20


@dataclass
class Raw:
    """One answer. `closed`: the server has ended the connection behind it."""

    status: int
    headers: dict[str, str]
    body: bytes
    closed: bool = False

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)["error"]
        return found


@dataclass
class Line:
    """One connection to the server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        """A server that has hung up already is not the sender's concern."""
        try:
            self.writer.write(data)
            await asyncio.wait_for(self.writer.drain(), PATIENCE_S)
        except ConnectionError:
            return

    async def answer(self) -> Raw | None:
        """The next one; None if the connection ends without."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                head = await self.reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                return None
            first, *lines = head.decode("latin-1").split("\r\n")[:-2]
            headers = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in lines)
            }
            return Raw(int(first.split(" ")[1]), headers, await self._body(headers))

    async def _body(self, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        body = b""
        while size := int(await self.reader.readline(), 16):
            body += await self.reader.readexactly(size)
            await self.reader.readline()
        await self.reader.readline()
        return body

    async def ended(self) -> bool:
        """Whether the server closes the connection without another byte."""
        try:
            return await asyncio.wait_for(self.reader.read(1), PATIENCE_S) == b""
        except ConnectionError:
            return True

    async def close(self) -> None:
        self.writer.transport.abort()


@dataclass
class Site:
    """A listening application. `refused`: statuses of what was answered in its place."""

    address: tuple[str, int]
    refused: list[int] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    async def connect(self) -> Line:
        line = Line(*await asyncio.open_connection(*self.address))
        self.lines.append(line)
        return line

    async def ask(self, *pieces: bytes) -> Raw | None:
        """What a new connection is answered to these bytes."""
        line = await self.connect()
        for piece in pieces:
            await line.send(piece)
        answer = await line.answer()
        if answer is not None and answer.headers.get("connection") == "close":
            answer.closed = await line.ended()
        await line.close()
        return answer

    async def healthy(self) -> bool:
        answer = await self.ask(request("GET", "/health/live"))
        return answer is not None and answer.status == 200


@asynccontextmanager
async def listening(app: FastAPI, limits: Limits) -> AsyncIterator[Site]:
    with bind("127.0.0.1", 0) as bound:
        site = Site(bound.getsockname())

        def told(method: str, route: str | None, status: int, seconds: float) -> None:
            site.refused.append(status)

        async with serving(app, bound, limits, told):
            await asyncio.sleep(0)
            try:
                yield site
            finally:
                for line in site.lines:
                    await line.close()


def request(
    method: str, target: str, body: bytes = b"", headers: Sequence[tuple[str, str]] = ()
) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: x"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
