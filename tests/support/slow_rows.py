"""What one request's decoder sees, step by step, for the slow reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from support.slow_attention import Extra
from support.slow_model import SlowModel


@dataclass
class Sight:
    """The decoder's side of one request: its extras, and where its own tokens stand."""

    model: SlowModel
    extras: dict[str, list[Extra]] = field(default_factory=dict)
    shift: int = 0

    def add(self, site: str, extra: Extra) -> None:
        self.extras.setdefault(site, []).append(extra)

    def prefix(self, kv: Tensor, offset: int) -> None:
        """Before all own tokens, and after the prefixes so far."""
        self.add("decoder", Extra(kv, 0, self.shift if offset else None))
        self.shift += offset

    def positions(self, count: int) -> Tensor:
        return torch.arange(count) + self.shift


class Row(Protocol):
    """One request's decoder."""

    def logits(self, output: Sequence[int]) -> Tensor:
        """`[vocabulary]`, of the token after these new ones."""
        ...


@dataclass(frozen=True)
class CausalRow:
    """Goes on after `start`, whose tokens from `at` on stand `jump` further, behind infixes."""

    row: Sight
    start: tuple[int, ...]
    at: int
    jump: int

    def logits(self, output: Sequence[int]) -> Tensor:
        tokens = (*self.start, *output)
        positions = self.row.positions(len(tokens))
        positions[self.at :] += self.jump
        return self.row.model.run(tokens, positions, self.row.extras)[0][-1]


@dataclass(frozen=True)
class Seq2SeqRow:
    """`states` `[S, hidden]` are the encoder's; the decoder goes on after `start`."""

    row: Sight
    start: tuple[int, ...]
    states: Tensor

    def logits(self, output: Sequence[int]) -> Tensor:
        tokens = (*self.start, *output)
        positions = self.row.positions(len(tokens))
        return self.row.model.decode(self.states, tokens, positions, self.row.extras)[-1]
