"""Attention as the formula says: one row, one head at a time, in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from prefixmux_server.attention.rules import PLAIN, ScoreRules


def eager(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    scaling: float,
    rule: ScoreRules = PLAIN,
    positions: Sequence[int | None] = (),
    *,
    causal: bool = True,
) -> Tensor:
    """One row: `query` `[H, n, D_k]`, `keys` `[m, H_kv, D_k]`, `values` `[m, H_kv, D_v]`.

    The n queries are the last of the m tokens, and see none after themselves if they are
    `causal`. `positions` are those of the m, None for one that has no place in the position
    system; rules that ask for none need none. Returns `[n, H, D_v]` in float64.
    """
    heads, count, _ = query.shape
    total, kv_heads, width = values.shape
    hidden = _hidden(rule, count, total, positions, causal=causal)
    out = torch.zeros(count, heads, width, dtype=torch.float64)
    for head in range(heads):
        shared = head // (heads // kv_heads)
        scores = query[head].double() @ keys[:, shared].double().T * scaling
        if rule.softcap is not None:
            scores = rule.softcap * torch.tanh(scores / rule.softcap)
        if rule.bias is not None:
            scores = scores + _biases(rule.bias.table[head], count, positions)
        weights = scores.masked_fill(hidden, -math.inf).softmax(-1)
        out[:, head] = weights @ values[:, shared].double()
    return out


def _hidden(
    rule: ScoreRules, count: int, total: int, positions: Sequence[int | None], *, causal: bool
) -> Tensor:
    """`[n, m]`: what a query must not see, as it comes later or is too long ago."""
    first = total - count
    hidden = torch.zeros(count, total, dtype=torch.bool)
    for token in range(count):
        if causal:
            hidden[token, first + token + 1 :] = True
        if rule.window is not None:
            asking = positions[first + token]
            assert asking is not None, "a query has a position"
            near = [place is None or asking - place < rule.window for place in positions]
            hidden[token] |= ~torch.tensor(near)
    return hidden


def _biases(table: Tensor, count: int, positions: Sequence[int | None]) -> Tensor:
    """`[n, m]`: what one head adds by distance; nothing where there is none."""
    reach, known = len(table) // 2, table.double().tolist()
    rows = [
        [
            0.0
            if place is None or asking is None
            else known[reach + max(-reach, min(reach, place - asking))]
            for place in positions
        ]
        for asking in positions[len(positions) - count :]
    ]
    return torch.tensor(rows, dtype=torch.float64).view(count, len(positions))
