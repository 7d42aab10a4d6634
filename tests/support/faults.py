"""Failpoints that break steps on purpose, and a clock that a test moves by hand."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from prefixmux_server.engine.failpoints import Failpoints
from support.models import EOS


class Passes(Failpoints):
    """Breaks nothing; `seen` lists the requests of every forward pass."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, ...]] = []

    def before_forward(self, ids: Sequence[str]) -> None:
        self.seen.append(tuple(ids))


class RaisesFor(Passes):
    """Every pass with one of these requests raises, the first `healthy` such passes excepted.

    `times` bounds how often: a fault that goes away by itself.
    """

    def __init__(
        self, culprits: Collection[str], *, healthy: int = 0, times: int | None = None
    ) -> None:
        super().__init__()
        self.culprits = set(culprits)
        self.healthy = healthy
        self.times = times

    def before_forward(self, ids: Sequence[str]) -> None:
        super().before_forward(ids)
        if self.culprits.isdisjoint(ids) or self.times == 0:
            return
        if self.healthy:
            self.healthy -= 1
            return
        if self.times is not None:
            self.times -= 1
        raise RuntimeError("a fault that the test planted")


class NaNFor(Passes):
    """One cell of a request's logits is `value`, from its `step`-th logits on."""

    def __init__(self, culprit: str, *, step: int = 0, value: float = float("nan")) -> None:
        super().__init__()
        self.culprit = culprit
        self.step = step
        self.value = value

    def after_forward(self, ids: Sequence[str], logits: torch.Tensor) -> torch.Tensor:
        if self.culprit not in ids:
            return logits
        self.step -= 1
        if self.step >= 0:
            return logits
        broken = logits.clone()
        broken[list(ids).index(self.culprit), 5] = self.value
        return broken


class Clock:
    """Seconds as the test says; it stands still by itself."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class BansAllFor(Failpoints):
    """A model that leaves a request no token but the end, from its `step`-th logits on; rows of
    one step are counted once."""

    def __init__(self, culprit: str, step: int, end: int = EOS) -> None:
        self.culprit = culprit
        self.step = step
        self.end = end

    def after_forward(self, ids: Sequence[str], logits: torch.Tensor) -> torch.Tensor:
        if self.culprit not in ids:
            return logits
        self.step -= 1
        if self.step >= 0:
            return logits
        banned = logits.clone()
        for place, name in enumerate(ids):
            if name == self.culprit:
                kept = banned[place, self.end].clone()
                banned[place] = float("-inf")
                banned[place, self.end] = kept
        return banned
