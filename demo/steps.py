"""Reads the engine's own step record: which requests each forward pass held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2

PAGE = 1000


@dataclass(frozen=True)
class Shared:
    """The steps that one request took part in, and the most others that a step held with it."""

    first: int
    last: int
    others: int

    def __str__(self) -> str:
        return f"{self.first}-{self.last} (with up to {self.others} others)"


def fetch_steps(base_url: str) -> list[Mapping[str, Any]]:
    """The step records that the server still has, oldest first. Raises httpx2.HTTPError."""
    steps: list[Mapping[str, Any]] = []
    while True:
        since = int(steps[-1]["step"]) if steps else 0
        query = {"since": since, "limit": PAGE}
        answer = httpx2.get(f"{base_url}/steps", params=query, timeout=10.0)
        answer.raise_for_status()
        page: list[Mapping[str, Any]] = answer.json()["items"]
        steps += page
        if len(page) < PAGE:
            return steps


def shared_steps(steps: Sequence[Mapping[str, Any]], request_id: str) -> Shared | None:
    """Where `request_id` ran; None if the record no longer has it."""
    own = [step for step in steps if request_id in _requests(step)]
    if not own:
        return None
    numbers = [int(step["step"]) for step in own]
    return Shared(min(numbers), max(numbers), max(len(_requests(step)) for step in own) - 1)


def fullest_step(steps: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """The most requests that any one step held, and of how many tasks (the bare model is none)."""
    return max(((len(_requests(step)), len(_tasks(step))) for step in steps), default=(0, 0))


def _requests(step: Mapping[str, Any]) -> set[str]:
    return {row["request_id"] for row in step["rows"]}


def _tasks(step: Mapping[str, Any]) -> set[str]:
    return {row["task_id"] for row in step["rows"]} - {None}
