"""Server-sent events as a client sees them, and a call whose reading a test controls."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from api.asgi import RawCall


@dataclass(frozen=True)
class Event:
    name: str
    data: Any


def events(content: bytes) -> list[Event]:
    """All of them must be whole; comments are left out."""
    text = content.decode("ascii")
    assert text.endswith("\n\n") or not text
    assert "\r" not in text
    found = []
    for block in text.split("\n\n")[:-1]:
        if block.startswith(":"):
            continue
        (name, data) = block.split("\n")
        found.append(Event(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def joined(found: list[Event], index: int = 0) -> tuple[str, list[int]]:
    """Text and token ids of one output."""
    told = [event.data for event in found if event.name == "token" and event.data["index"] == index]
    return "".join(one["text"] for one in told), [id for one in told for id in one["token_ids"]]


def terminal(found: list[Event]) -> Event:
    """The last event, which must be the only one that ends the stream."""
    assert [event.name for event in found[:-1]] == ["token"] * (len(found) - 1)
    assert found[-1].name in ("done", "error")
    return found[-1]


@dataclass
class StreamCall(RawCall):
    """`reading` cleared: what is sent finds no reader, as behind a full socket."""

    reading: asyncio.Event = field(default_factory=asyncio.Event)
    sent: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.reading.set()

    @property
    def status(self) -> int | None:
        return self.messages[0]["status"] if self.messages else None

    @property
    def content(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    @property
    def whole(self) -> bool:
        """Whether the response was sent to its end."""
        return bool(self.messages) and self.messages[-1].get("more_body") is False

    async def token(self) -> None:
        """Until there is one."""
        while b"event: token" not in self.content:
            self.sent.clear()
            await self.sent.wait()

    async def _send(self, message: Any) -> None:
        await self.reading.wait()
        await super()._send(message)
        self.sent.set()
