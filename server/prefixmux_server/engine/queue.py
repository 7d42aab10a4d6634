"""Waiting requests, and who goes next. Knows order, not memory: the caller says what fits."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Protocol

from prefixmux_server.engine.request import Request


class Verdict(Enum):
    """What became of a waiting request that was offered a row."""

    TAKEN = "taken"
    """It runs, or it was refused for good: it leaves the queue."""
    NOT_YET = "not yet"
    """Its prefix is loading: others may overtake it."""
    NO_ROOM = "no room"
    """Memory is short: nobody may overtake it, else large requests starve."""


class WaitingQueue(Protocol):
    """An order among waiting requests."""

    def push(self, request: Request) -> None: ...

    def remove(self, request: Request) -> None: ...

    def next_admissible(self, offer: Callable[[Request], Verdict]) -> Request | None:
        """Offer rows in order; returns the first request TAKEN, after removing it."""
        ...

    def charge(self, tenant: str, tokens: int) -> None:
        """Tell the order what a tenant has been given."""
        ...

    def __iter__(self) -> Iterator[Request]: ...

    def __len__(self) -> int: ...


class FirstComeQueue:
    """Higher priority first, then first come, first served."""

    def __init__(self) -> None:
        self._requests: list[Request] = []

    def push(self, request: Request) -> None:
        insort(self._requests, request, key=lambda r: (-r.submit.priority, r.arrived))

    def remove(self, request: Request) -> None:
        self._requests.remove(request)

    def next_admissible(self, offer: Callable[[Request], Verdict]) -> Request | None:
        for request in self._requests:
            verdict = offer(request)
            if verdict is Verdict.TAKEN:
                self._requests.remove(request)
                return request
            if verdict is Verdict.NO_ROOM:
                return None
        return None

    def charge(self, tenant: str, tokens: int) -> None:
        """This order keeps no accounts."""

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests)

    def __len__(self) -> int:
        return len(self._requests)
