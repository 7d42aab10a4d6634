"""Attention of one block of queries over one block of keys, under a layer's rules.

What may be seen comes as a boolean mask; the rules turn it into what is added to the scores.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from prefixmux_server.attention.base import lower_right_mask
from prefixmux_server.attention.rules import OUTSIDE, RelativeBias, ScoreRules


def rule_mask(
    rule: ScoreRules,
    mask: Tensor | None,
    queries: Tensor | None,
    keys: Tensor | None,
    dtype: torch.dtype,
) -> Tensor | None:
    """What to add to scores `[..., H, Q, S]`, or as a boolean mask what to keep; None: nothing.

    `mask` `[..., Q, S]` is True where a query may look; `queries` `[..., Q]` and `keys` `[..., S]`
    are positions, which only positional rules need. `dtype` is that of the scores.
    """
    if not rule.positional:
        return None if mask is None else mask.unsqueeze(-3)
    assert queries is not None and keys is not None, "these rules need positions"
    distance = keys.unsqueeze(-2) - queries.unsqueeze(-1)
    if rule.window is not None:
        near = distance > -rule.window
        mask = near if mask is None else mask & near
    if rule.bias is None:
        return None if mask is None else mask.unsqueeze(-3)
    bias = relative_bias(rule.bias, distance).to(dtype)
    return bias if mask is None else bias.masked_fill(~mask.unsqueeze(-3), float("-inf"))


def block_mask(
    rule: ScoreRules,
    causal: bool,
    queries: int,
    length: int,
    positions: Tensor | None,
    like: Tensor,
) -> Tensor | None:
    """What the last `queries` of one row's `length` cells see of all of them, or, where they are
    not cells of it, of the whole row; `positions` are the row's, `like` gives type and device."""
    if not causal:
        assert not rule.positional, "queries that are not the row's own have no positions in it"
        return None
    mask = lower_right_mask(queries, length, like.device)
    seen = None if positions is None else positions[:length].to(like.device)
    asking = None if seen is None else seen[length - queries :]
    return rule_mask(rule, mask, asking, seen, like.dtype)


def relative_bias(bias: RelativeBias, distance: Tensor) -> Tensor:
    """`[..., H, Q, S]` for distances `[..., Q, S]`; keys outside the position system get 0."""
    reach = bias.reach
    values = bias.table[:, distance.clamp(-reach, reach) + reach].movedim(0, -3)
    return values.masked_fill((distance > OUTSIDE // 2).unsqueeze(-3), 0.0)


def attend_block(
    rule: ScoreRules, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float
) -> Tensor:
    """`query` `[B, H, Q, D]`, `key` and `value` `[B, H_kv, S, D]`, `mask` as `rule_mask` gives it;
    returns `[B, H, Q, D_v]`."""
    if mask is not None and mask.dim() == 3:
        # With a mask of three dimensions PyTorch takes the slow path of its own formulas.
        mask = mask.unsqueeze(0)
    if rule.softcap is None:
        return scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=scaling, enable_gqa=True
        )
    groups = query.shape[1] // key.shape[1]
    key, value = (t.repeat_interleave(groups, dim=1) for t in (key, value))
    scores = soft_capped(query @ key.transpose(-1, -2) * scaling, rule.softcap)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, float("-inf"))
    elif mask is not None:
        scores = scores + mask
    return scores.softmax(-1) @ value


def soft_capped(scores: Tensor, cap: float) -> Tensor:
    return cap * torch.tanh(scores / cap)
