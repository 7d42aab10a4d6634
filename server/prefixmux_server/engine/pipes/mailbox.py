"""The engine process's ends of the pipes, and the bell with which its own threads wake it.

Blocking. Knows nothing of what the messages mean.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator
from contextlib import suppress

from prefixmux_server.engine.messages import EngineEvent
from prefixmux_server.engine.pipes.wire import FrameReader, events

CHUNK = 1 << 16


class Doorbell:
    """A pipe to oneself: any thread rings, and whoever polls it wakes."""

    def __init__(self) -> None:
        self.fd, self._write = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write, False)

    def ring(self) -> None:
        with suppress(BlockingIOError):  # full: it rings already
            os.write(self._write, b"\0")

    def hush(self) -> None:
        with suppress(BlockingIOError):
            os.read(self.fd, CHUNK)

    def close(self) -> None:
        """Not while another thread may still ring."""
        os.close(self.fd)
        os.close(self._write)


class Inbox:
    """The bodies of the frames that arrive, and the bell, as one thing to wait for: for the one
    thread that steps the engine."""

    def __init__(self, fd: int, bell: Doorbell) -> None:
        self._fd = fd
        self._bell = bell
        self._frames = FrameReader()
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._poll.register(bell.fd, select.POLLIN)

    def receive(self, seconds: float | None) -> Iterator[bytes]:
        """All that has arrived, after waiting for it or the bell; None waits for ever.

        Without a parent there is nobody to work for: then the process exits.
        """
        ready = self._wait(seconds)
        if self._bell.fd in ready:
            self._bell.hush()
        while self._fd in ready:
            data = os.read(self._fd, CHUNK)
            if not data:
                raise SystemExit(1)
            yield from self._frames.feed(data)
            ready = self._wait(0)

    def _wait(self, seconds: float | None) -> dict[int, int]:
        return dict(self._poll.poll(None if seconds is None else seconds * 1000))


class Outbox:
    """Frames out, of any thread. A parent that does not read makes the engine wait, which is as it
    should be."""

    def __init__(self, fd: int) -> None:
        self._lock = threading.Lock()
        self._stream = os.fdopen(fd, "wb")
        self._codec = events()

    def send(self, event: EngineEvent) -> None:
        frame = self._codec.encode(event)
        try:
            with self._lock:
                self._stream.write(frame)
                self._stream.flush()
        except BrokenPipeError:
            raise SystemExit(1) from None
