"""A proxy that breaks connections where it is told to."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from anyio.from_thread import start_blocking_portal

PIECE = 4096
BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 0\r\nconnection: close\r\n"
    b"content-length: 0\r\n\r\n"
)


@dataclass(frozen=True)
class Fault:
    """What happens to one connection once `after` bytes went `way`: the client's request up, or
    the answer down. `garbage` are random bytes, and then the end."""

    kind: Literal["close", "reset", "garbage", "busy"]
    way: Literal["up", "down"] = "down"
    after: int = 0


class FaultProxy:
    """Each connection takes the next of `faults`; when there are none left it is let through."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.faults: deque[Fault] = deque()
        self.connections = 0
        self.address = ""
        self._target = target
        self._random = random.Random(0)

    async def serve(self) -> asyncio.Server:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        fault = self.faults.popleft() if self.faults else None
        async with _closing(writer):
            if fault is not None and fault.kind == "busy":
                await reader.readuntil(b"\r\n\r\n")
                writer.write(BUSY)
                await writer.drain()
            else:
                await self._forward(reader, writer, fault)

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault | None
    ) -> None:
        up_reader, up_writer = await asyncio.open_connection(*self._target)
        async with _closing(up_writer):
            ways = {
                asyncio.create_task(self._pump(reader, up_writer, _of(fault, "up"), writer)),
                asyncio.create_task(self._pump(up_reader, writer, _of(fault, "down"), writer)),
            }
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        fault: Fault | None,
        client: asyncio.StreamWriter,
    ) -> None:
        moved = 0
        while piece := await source.read(PIECE):
            if fault is not None and moved + len(piece) > fault.after:
                kept = max(fault.after - moved, 0)
                noise = self._random.randbytes(64) if fault.kind == "garbage" else b""
                sink.write(piece[:kept] + noise)
                await sink.drain()
                if fault.kind == "reset":
                    _reset(client)
                return
            moved += len(piece)
            sink.write(piece)
            await sink.drain()


@asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        with suppress(OSError, asyncio.IncompleteReadError):
            yield
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


@contextmanager
def faulty(target: tuple[str, int]) -> Iterator[FaultProxy]:
    proxy = FaultProxy(target)
    with start_blocking_portal() as portal:
        server = portal.call(proxy.serve)
        try:
            yield proxy
        finally:
            portal.call(_closed, server)


async def _closed(server: asyncio.Server) -> None:
    server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    handlers = [task for task in others if "_connected" in repr(task.get_coro())]
    for task in handlers:
        task.cancel()
    await asyncio.gather(*handlers, return_exceptions=True)


def _of(fault: Fault | None, way: str) -> Fault | None:
    return fault if fault is not None and fault.way == way else None


def _reset(writer: asyncio.StreamWriter) -> None:
    """Ends the connection without an end, as a machine that dies does."""
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
