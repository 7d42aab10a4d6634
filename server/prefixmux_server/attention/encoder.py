"""Encoder self-attention: each row whole and once, over its prefix and its own tokens.

Nothing is kept: an encoder's keys and values are of no use after its pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prefixmux_server.attention.rules import OUTSIDE, ScoreRules
from prefixmux_server.attention.scores import attend_block, rule_mask


@dataclass(frozen=True, eq=False)
class EncoderRow:
    """Tokens `first .. first + count` of the ragged batch, behind `prefixes` `[L, 2, P, H_kv, D]`.

    The prefixes have no positions; the row's own tokens count from 0.
    """

    first: int
    count: int
    prefixes: Sequence[Tensor] = ()

    @property
    def prefix_tokens(self) -> int:
        return sum(prefix.shape[2] for prefix in self.prefixes)


class EncoderPlan:
    """One encoder pass; `rules` are per layer."""

    def __init__(self, rows: Sequence[EncoderRow], rules: Sequence[ScoreRules]) -> None:
        self._rows = rows
        self._rules = rules
        self._masks: dict[tuple[int, ScoreRules], Tensor | None] = {}

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        rule = self._rules[layer]
        out = query.new_empty(query.shape[1], query.shape[0], value.shape[2])
        for index, row in enumerate(self._rows):
            own = slice(row.first, row.first + row.count)
            keys = torch.cat([*(p[layer, 0].transpose(0, 1) for p in row.prefixes), key[:, own]], 1)
            values = torch.cat(
                [*(p[layer, 1].transpose(0, 1) for p in row.prefixes), value[:, own]], 1
            )
            mask = self._mask(index, rule, query)
            found = attend_block(rule, query[None, :, own], keys[None], values[None], mask, scaling)
            out[own] = found[0].transpose(0, 1)
        return out

    def _mask(self, index: int, rule: ScoreRules, like: Tensor) -> Tensor | None:
        if not rule.positional:
            return None
        if (index, rule) not in self._masks:
            row = self._rows[index]
            own = torch.arange(row.count, device=like.device)
            outside = torch.full((row.prefix_tokens,), OUTSIDE, device=like.device)
            keys = torch.cat([outside, own])
            self._masks[index, rule] = rule_mask(rule, None, own, keys, like.dtype)
        return self._masks[index, rule]
