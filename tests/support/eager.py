"""Attention as the formula says: one query, one head at a time, in float64."""

from __future__ import annotations

import torch
from torch import Tensor


def eager(query: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
    """One row: `query` `[H, n, D_k]`, `keys` `[m, H_kv, D_k]`, `values` `[m, H_kv, D_v]`.

    The n queries are the last of the m tokens. Returns `[n, H, D_v]` in float64.
    """
    heads, count, _ = query.shape
    total, kv_heads, width = values.shape
    out = torch.zeros(count, heads, width, dtype=torch.float64)
    for head in range(heads):
        shared = head // (heads // kv_heads)
        for token in range(count):
            seen = total - count + token + 1
            scores = keys[:seen, shared].double() @ query[head, token].double() * scaling
            out[token, head] = scores.softmax(0) @ values[:seen, shared].double()
    return out
