"""Attention as the formula says: one query, one head at a time, in float64."""

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
    out = torch.zeros(count, heads, width, dtype=torch.float64)
    for head in range(heads):
        shared = head // (heads // kv_heads)
        for token in range(count):
            seen = total - count + token + 1 if causal else total
            scores = keys[:seen, shared].double() @ query[head, token].double() * scaling
            if rule.softcap is not None:
                scores = rule.softcap * torch.tanh(scores / rule.softcap)
            if rule.positional:
                place = positions[total - count + token]
                assert place is not None, "a query has a position"
                scores = scores + _offsets(rule, head, place, positions[:seen])
            out[token, head] = scores.softmax(0) @ values[:seen, shared].double()
    return out


def _offsets(rule: ScoreRules, head: int, place: int, keys: Sequence[int | None]) -> Tensor:
    """What is added to the scores of one query at `place`, key by key."""
    known = torch.tensor([key is not None for key in keys])
    apart = torch.tensor([0 if key is None else key - place for key in keys])
    added = torch.zeros(len(keys), dtype=torch.float64)
    if rule.bias is not None:
        table = rule.bias.table[head].double()
        middle = len(table) // 2
        nearest = torch.tensor([max(-middle, min(middle, d)) for d in apart.tolist()])
        added[known] = table[middle + nearest[known]]
    if rule.window is not None:
        added[known & (-apart >= rule.window)] = -math.inf
    return added
