"""One engine process seen from the event loop: its pipes, its messages, its end.

The process is a fresh interpreter (nothing forked, nothing pickled) whose stdin and stdout are the
pipes, so asyncio's own transports do the non-blocking reads and writes. Knows nothing of requests
and never starts a second process: `client.py` decides what follows an end.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from contextlib import suppress

from prefixmux_server.engine.errors import EngineStartError
from prefixmux_server.engine.messages import EngineCommand, EngineEvent
from prefixmux_server.engine.pipes import process
from prefixmux_server.engine.pipes.mailbox import CHUNK
from prefixmux_server.engine.pipes.process import Start
from prefixmux_server.engine.pipes.wire import Codec, FrameReader, commands, events

# What a process whose pipe has ended may still take to be gone.
REAP_SECONDS = 5.0


class EngineLink:
    """Used by one event loop. Whoever spawned it must `reap` it."""

    def __init__(
        self, child: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._child = child
        self._reader = reader
        self._writer = writer
        self._frames = FrameReader()
        self._arrived: deque[bytes] = deque()
        self._commands = commands()
        self._events = events()

    @classmethod
    async def spawn(cls, start: Start) -> EngineLink:
        """Start the process and tell it what to load. Raises `EngineStartError`."""
        # -P: the working directory of the server is no place to import from.
        command = sys.executable, "-P", "-m", process.__name__
        try:
            child = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
        except OSError as error:
            message = "The engine process could not be started."
            raise EngineStartError("internal_error", message) from error
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdin.write(Codec(Start).encode(start))
        return cls(child, child.stdout, child.stdin)

    @property
    def backlog(self) -> int:
        """Bytes that the process has not taken yet."""
        return self._writer.transport.get_write_buffer_size()

    def send(self, command: EngineCommand) -> None:
        """Never blocks: what the pipe does not take is written when it does.

        To an engine that is gone nothing is sent; `receive` is about to say so.
        """
        frame = self._commands.encode(command)
        if not self._writer.is_closing():
            self._writer.write(frame)

    async def receive(self) -> EngineEvent | None:
        """The next event; None when the process has ended. Raises `WireError`."""
        await asyncio.sleep(0)  # many may have come at once: others have their turn between them
        while not self._arrived:
            data = await self._reader.read(CHUNK)
            if not data:
                return None
            self._arrived.extend(self._frames.feed(data))
        return self._events.decode(self._arrived.popleft())

    def kill(self) -> None:
        """SIGKILL; harmless if it has ended. `receive` then returns None."""
        with suppress(ProcessLookupError):
            self._child.kill()

    async def reap(self) -> int:
        """Wait for the end and let go of the pipes; kill after `REAP_SECONDS` or if cancelled.

        Returns the exit status, negative for a signal.
        """
        ending = asyncio.create_task(self._end())
        try:
            return await asyncio.shield(ending)
        except asyncio.CancelledError:
            self.kill()
            await ending
            raise

    async def _end(self) -> int:
        try:
            await asyncio.wait_for(self._child.wait(), REAP_SECONDS)
        except TimeoutError:
            self.kill()
        self._writer.close()
        while await self._reader.read(CHUNK):  # asyncio closes a pipe only at its end
            pass
        return await self._child.wait()
