"""What every attention backend answers: one step's plan, asked once per layer.

A plan is made once per forward pass and knows, for each token of the ragged batch, which KV its
row sees. It knows nothing of requests, tasks or how memory is given out.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class StepPlan(Protocol):
    """The attention of one forward pass over a ragged batch of T tokens."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """Store the tokens' KV, then attend.

        `query` is `[H, T, D_k]`, `key` `[H_kv, T, D_k]`, `value` `[H_kv, T, D_v]`; returns
        `[T, H, D_v]`. Each token sees its row's prefix whole, and its row's own tokens up to
        itself. `scaling` multiplies the scores, as the model gives it.
        """
        ...


def lower_right_mask(queries: int, keys: int, device: torch.device) -> Tensor:
    """`[queries, keys]`, True where query i (of the last `queries` positions) may see key j."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
