"""What the benchmark asks of a system under test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bench.artefacts import Artefacts
from bench.workload import Workload


@dataclass(frozen=True)
class Bench:
    """What a peer is built from. `store` is an empty folder for this peer alone."""

    workload: Workload
    artefacts: Artefacts
    dtype: str
    threads: int
    largest: int
    store: Path

    @property
    def rows(self) -> int:
        """Rows of a batch that our server is given."""
        return max(64, self.largest * self.workload.beams)


@dataclass(frozen=True)
class Sample:
    """One run: `tokens` new tokens in `seconds`, from the first prompt to the last token, or in
    all those decode steps that had every request in them, where a peer measures steps.

    `requests` may be fewer than asked for, where a peer's speed does not depend on their number.
    `outputs` are their new tokens, in order; empty where a peer computes a limit, not tokens.
    `first_use` is how many seconds longer the first request of a task takes than a later one,
    where a peer looks at that; `notes` are other numbers that it saw on the way, by name.
    """

    tokens: int
    seconds: float
    requests: int
    outputs: tuple[tuple[int, ...], ...]
    first_use: float | None = None
    notes: Mapping[str, float] = field(default_factory=dict)


class Peer(Protocol):
    """A system that is loaded and ready."""

    def run(self, requests: int, new_tokens: int) -> Sample:
        """The first `requests` of the workload, ended after `new_tokens` each."""
        ...

    def close(self) -> None: ...
