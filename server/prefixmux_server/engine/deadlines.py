"""Whose deadline has passed, found without a look at every request in every step."""

from __future__ import annotations

import math
from collections.abc import Iterable

from prefixmux_server.engine.request import Request


class Deadlines:
    """No open request's deadline is before `_earliest`. That may be the deadline of one that has
    ended: then one look finds the next."""

    def __init__(self) -> None:
        self._earliest = math.inf

    def add(self, request: Request) -> None:
        self._earliest = min(self._earliest, _deadline(request))

    def passed(self, now: float, open: Iterable[Request]) -> list[Request]:
        """Those of all open requests that have to end by now: the caller ends them."""
        if now < self._earliest:
            return []
        late, others = list[Request](), math.inf
        for request in open:
            deadline = _deadline(request)
            if deadline <= now:
                late.append(request)
            else:
                others = min(others, deadline)
        self._earliest = others
        return late


def _deadline(request: Request) -> float:
    deadline = request.submit.deadline
    return math.inf if deadline is None else deadline
