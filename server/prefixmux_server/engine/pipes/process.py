"""The engine process: it builds an engine, steps it, and speaks for it over two pipes.

Run as `python -m` by `link.py`, which makes stdin the inbox and stdout the outbox. The first frame
is a `Start`; after it come commands. Owns the loop and how the process ends. Knows nothing of
models and batches, and imports torch only through the factory that `Start` names.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import TracebackType
from typing import Protocol, cast

from prefixmux_server.engine.errors import EngineStartError
from prefixmux_server.engine.heap import keep_what_is_loaded
from prefixmux_server.engine.messages import (
    Abort,
    EngineCommand,
    Pin,
    Ready,
    StartFailed,
    StepOutput,
    Submit,
)
from prefixmux_server.engine.parts import parts
from prefixmux_server.engine.pipes.mailbox import Doorbell, Inbox, Outbox
from prefixmux_server.engine.pipes.pulse import Pulse
from prefixmux_server.engine.pipes.wire import Codec, commands
from prefixmux_server.engine.settings import EngineSettings

# While requests only wait (for a prefix to load), the engine is still stepped this often, so that
# it can end those whose deadline passes.
STALLED_SECONDS = 0.1


class SteppedEngine(Protocol):
    """The engine as this loop drives it; nothing here runs in another thread."""

    @property
    def has_work(self) -> bool: ...

    def submit(self, submit: Submit, /) -> None: ...

    def abort(self, id: str, index: int | None = None, /) -> None: ...

    def pin(self, pin: Pin, /) -> None: ...

    def step(self) -> StepOutput | None:
        """None: nothing could run now; `wake` will be called when that changes."""
        ...

    def close(self) -> None: ...


Wake = Callable[[], None]
Factory = Callable[[EngineSettings, Wake], tuple[SteppedEngine, Ready]]


@dataclass(frozen=True)
class Start:
    """The first frame. `factory` is `package.module:function`, a `Factory`; `path` is the
    parent's `sys.path`, so that both processes import the same code; `beat_seconds` is how often
    the process shall say that it lives."""

    settings: EngineSettings
    factory: str
    path: tuple[str, ...]
    beat_seconds: float


class EngineLoop:
    """Commands in, one `StepOutput` per step out, until `Shutdown` or the parent's end."""

    def __init__(self, engine: SteppedEngine, inbox: Inbox, outbox: Outbox, pulse: Pulse) -> None:
        self._engine = engine
        self._inbox = inbox
        self._outbox = outbox
        self._pulse = pulse
        self._codec = commands()

    def run(self) -> None:
        pause: float | None = None
        while self._obey_all(pause):
            pause = self._advance()

    def _obey_all(self, pause: float | None) -> bool:
        """False once `Shutdown` has come."""
        return all(self._obey(self._codec.decode(body)) for body in self._inbox.receive(pause))

    def _advance(self) -> float | None:
        """One step if there is work. Returns how long to wait for commands after it."""
        if not self._engine.has_work:
            return None
        self._pulse.work()
        output = self._engine.step()
        self._pulse.rest()  # also while the parent does not read: that is no hang of this process
        if output is None:
            return STALLED_SECONDS
        for part in parts(output):
            self._outbox.send(part)
        return 0

    def _obey(self, command: EngineCommand) -> bool:
        self._pulse.work()
        match command:
            case Submit():
                self._engine.submit(command)
            case Abort(id, index):
                self._engine.abort(id, index)
            case Pin():
                self._engine.pin(command)
            case _:
                return False
        self._pulse.rest()
        return True


def run_engine(start: Start, inbox: Inbox, outbox: Outbox, wake: Wake) -> int:
    """Build the engine and serve until told to stop. Returns the exit status."""
    pulse = Pulse(outbox.send)
    pulse.start(start.beat_seconds)
    module, _, name = start.factory.partition(":")
    factory = cast(Factory, getattr(import_module(module), name))
    try:
        engine, ready = factory(start.settings, wake)
    except EngineStartError as error:
        outbox.send(StartFailed(error.code, error.message))
        return 1
    keep_what_is_loaded()
    outbox.send(ready)
    EngineLoop(engine, inbox, outbox, pulse).run()
    engine.close()
    return 0


def main() -> None:
    # A signal to the whole group or service is the parent's to answer: it drains, then says so.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    sys.excepthook = _end_on_error
    inbox_fd, outbox_fd = _take_standard_pipes()
    threading.Thread(target=_end_with_parent, args=(inbox_fd,), daemon=True).start()
    bell = Doorbell()
    inbox = Inbox(inbox_fd, bell)
    (body,) = inbox.receive(None)
    start = Codec(Start).decode(body)
    sys.path.extend(entry for entry in start.path if entry not in sys.path)
    _end(run_engine(start, inbox, Outbox(outbox_fd), bell.ring))


def _take_standard_pipes() -> tuple[int, int]:
    """Keep stdin and stdout for the protocol; what a library prints goes to stderr instead."""
    inbox, outbox = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return inbox, outbox


def _end_with_parent(inbox: int) -> None:
    """End at once when the parent dies, even in the middle of a long step."""
    poll = select.poll()
    poll.register(inbox, 0)  # no event asked for: only the hang-up, which is always reported
    poll.poll()
    _end(1)


def _end_on_error(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Says where and of which type, never the error's text: it may quote a client's data."""
    sys.stderr.write("".join(["engine process died\n", *traceback.format_tb(trace)]))
    sys.stderr.write(f"{kind.__module__}.{kind.__qualname__}\n")
    _end(1)


def _end(status: int) -> None:
    """Without waiting for loader threads or for the interpreter to take torch down."""
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
