"""Waiting requests, and who goes next: fair shares of the batch among tenants.

Virtual Token Counters (arXiv 2401.00588). A tenant's counter is what it has been given, in tokens
divided by its weight, and who has been given least goes next; nothing waits while somebody can
run. A tenant that comes back is lifted to the least counter of those that wait, so that idleness
saves nothing up. Two tenants that both wait are given equally, but for what the largest request
or one tenant's rows in the batch may hold. Knows order, not memory: the caller says what fits.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from heapq import heapify, heappop, heappush
from itertools import count

from prefixmux_server.engine.request import Request


class Verdict(Enum):
    """What became of a waiting request that was offered a row."""

    TAKEN = "taken"
    """It runs, or it was refused for good: it leaves the queue."""
    NOT_YET = "not yet"
    """Its prefix is loading: others may overtake it."""
    ITS_LIMIT = "its limit"
    """Its tenant runs as many rows as it may: other tenants may overtake it."""
    NO_ROOM = "no room"
    """Memory is short: nobody may overtake it, else large requests starve."""


@dataclass(eq=False)
class _Account:
    """One tenant: what it was given, and what waits, the next one first."""

    counter: float = 0.0
    weight: float = 1.0
    requests: list[Request] = field(default_factory=list)

    def charge(self, tokens: int) -> None:
        self.counter += tokens / self.weight


class FairQueue:
    """Among tenants the least served first, then who has waited longest; inside a tenant higher
    priority first, then first come, first served. It keeps an account of every tenant it met."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._waiting: dict[str, _Account] = {}
        self._last = _Account()
        self._count = 0

    def push(self, request: Request) -> None:
        tenant, share = request.submit.tenant, request.submit.share
        account = self._accounts.setdefault(tenant, _Account())
        account.weight = share.weight
        if tenant not in self._waiting:
            _lift([account], self._least())
            self._waiting[tenant] = account
        insort(account.requests, request, key=lambda r: (-r.submit.priority, r.arrived))
        self._count += 1

    def remove(self, request: Request) -> None:
        account = self._waiting[request.submit.tenant]
        account.requests.remove(request)
        self._count -= 1
        if not account.requests:
            self._last = self._waiting.pop(request.submit.tenant)

    def next_admissible(self, offer: Callable[[Request], Verdict]) -> Request | None:
        """Offer rows in order; returns the first request TAKEN, after removing it.

        A tenant at its limit is no more behind than one that is idle: it saves nothing up.
        """
        limited: list[_Account] = []
        for account in self._in_turn():
            for request in account.requests:
                verdict = offer(request)
                if verdict is Verdict.ITS_LIMIT:
                    limited.append(account)
                    break
                _lift(limited, account.counter)
                if verdict is Verdict.TAKEN:
                    self.remove(request)
                    return request
                if verdict is Verdict.NO_ROOM:
                    return None
        return None

    def charge(self, tenant: str, tokens: int) -> None:
        """Note what a tenant has been given."""
        self._accounts[tenant].charge(tokens)

    def served(self, tenant: str) -> float:
        """What a tenant has been given, as far as the order goes by it."""
        return self._accounts[tenant].counter

    def __iter__(self) -> Iterator[Request]:
        """Who is next, and who is then, each charged for its prompt. The queue must not change
        meanwhile."""
        turns = [(a.counter, a.requests[0].arrived, n, a, 0) for n, a in enumerate(self._active())]
        heapify(turns)
        while turns:
            counter, _, number, account, place = heappop(turns)
            request = account.requests[place]
            yield request
            if place + 1 < len(account.requests):
                counter += _prompt(request) / account.weight
                arrived = account.requests[place + 1].arrived
                heappush(turns, (counter, arrived, number, account, place + 1))

    def __len__(self) -> int:
        return self._count

    def _active(self) -> list[_Account]:
        return list(self._waiting.values())

    def _in_turn(self) -> Iterator[_Account]:
        """All but the first are rarely asked for."""
        numbers = count()
        turns = [(a.counter, a.requests[0].arrived, next(numbers), a) for a in self._active()]
        heapify(turns)
        while turns:
            yield heappop(turns)[-1]

    def _least(self) -> float:
        """Of those that wait; if none does, of the tenant that was the last to wait."""
        return min((a.counter for a in self._waiting.values()), default=self._last.counter)


def _prompt(request: Request) -> int:
    return len(request.submit.input_ids) + len(request.submit.decoder_ids)


def _lift(accounts: Iterable[_Account], least: float) -> None:
    for account in accounts:
        account.counter = max(account.counter, least)
