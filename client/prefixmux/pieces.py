"""Many calls at once, but not too many."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import anyio

from prefixmux.errors import InvalidArgumentError

J = TypeVar("J")
T = TypeVar("T")


async def in_order(do: Callable[[J], Awaitable[T]], jobs: Iterable[J], at_once: int) -> list[T]:
    """What `do` answers for each, in the order of `jobs`, which are made as they are needed.

    The first exception ends the others and is raised as it is.
    """
    if at_once < 1:
        raise InvalidArgumentError("max_concurrency must be at least 1.")
    answers: dict[int, T] = {}
    failures: list[BaseException] = []
    numbered = enumerate(jobs)

    async def work() -> None:
        try:
            for place, job in numbered:
                answers[place] = await do(job)
        except Exception as failure:  # noqa: BLE001 - raised below, without a group around it
            failures.append(failure)
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for _ in range(at_once):
            group.start_soon(work)
    if failures:
        raise failures[0]
    return [answers[place] for place in sorted(answers)]
