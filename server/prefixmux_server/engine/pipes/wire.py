"""How messages become bytes between the two processes: framed JSON with a fixed schema.

Owns the codec and the frame: four bytes of big-endian length, then `["ClassName", {fields}]`.
Decoding is strict and nothing is ever unpickled. Knows nothing of what the messages mean, of
processes or of event loops.
"""

from __future__ import annotations

import json
import struct
from dataclasses import is_dataclass
from functools import cache
from typing import Generic, NoReturn, TypeVar, cast

from prefixmux_server.engine.messages import (
    Abort,
    Alive,
    EngineCommand,
    EngineEvent,
    Pin,
    Ready,
    Shutdown,
    StartFailed,
    StepOutput,
    Submit,
)
from prefixmux_server.engine.pipes.schema import WireError, builder

T = TypeVar("T")

HEADER = struct.Struct("!I")
# Far above the largest message (a tokenizer of tens of megabytes); a length beyond it is garbage.
MAX_BODY = 1 << 30


class Codec(Generic[T]):
    """One direction of a pipe: `T` is the union of the message classes that it carries."""

    def __init__(self, *kinds: type[T]) -> None:
        self._builders = {kind.__name__: builder(kind) for kind in kinds}
        self._json = json.JSONEncoder(default=_fields, allow_nan=False, separators=(",", ":"))

    def encode(self, message: T) -> bytes:
        """The message as one frame. Raises `WireError` for a class that is not this way's and
        for values that JSON cannot hold."""
        name = type(message).__name__
        if name not in self._builders:
            raise WireError(f"not sent this way: {name}")
        try:
            body = self._json.encode([name, message]).encode()
        except (TypeError, ValueError) as error:
            raise WireError(f"not sendable: {name}") from error
        return HEADER.pack(len(body)) + body

    def decode(self, body: bytes) -> T:
        """The message in a frame's body. Raises `WireError` for anything but a whole, well-typed
        message of one of this way's classes."""
        try:
            tagged = json.loads(body, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise WireError("not JSON") from error
        if type(tagged) is not list or len(tagged) != 2 or type(tagged[0]) is not str:
            raise WireError("not a message")
        build = self._builders.get(tagged[0])
        if build is None:
            raise WireError("unknown message")
        return cast(T, build(tagged[1]))


class FrameReader:
    """Cuts a stream of bytes, in whatever pieces it arrives, into the bodies of its frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that `data` completes, oldest first; the rest waits for more.

        Raises `WireError` for an absurd length.
        """
        self._buffer += data
        bodies = []
        while (end := self._end()) is not None:
            bodies.append(bytes(self._buffer[HEADER.size : end]))
            del self._buffer[:end]
        return bodies

    def _end(self) -> int | None:
        if len(self._buffer) < HEADER.size:
            return None
        length: int = HEADER.unpack_from(self._buffer)[0]
        if length > MAX_BODY:
            raise WireError("frame too long")
        end = HEADER.size + length
        return end if len(self._buffer) >= end else None


@cache
def commands() -> Codec[EngineCommand]:
    """What the HTTP process tells the engine."""
    return Codec[EngineCommand](Submit, Abort, Pin, Shutdown)


@cache
def events() -> Codec[EngineEvent]:
    """What the engine tells the HTTP process."""
    return Codec[EngineEvent](Ready, StartFailed, StepOutput, Alive)


def _fields(message: object) -> dict[str, object]:
    if not is_dataclass(message):
        raise TypeError(type(message).__name__)
    return vars(message)


def _refuse(constant: str) -> NoReturn:
    raise WireError("not a finite number")
