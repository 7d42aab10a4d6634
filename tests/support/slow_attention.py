"""Attention with keys and values put before a request's own, as the definition says: one request,
every token, every key, an explicit table of who sees whom. Shares no code with the server.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

NAME = "slow_reference"


@dataclass(frozen=True, eq=False)
class Extra:
    """Constant keys and values of one site, `kv` `[L, 2, P, H_kv, D]`.

    Own tokens from `since` on see them. Key j stands at position `start + j`; `start` None: they
    are outside the position system.
    """

    kv: Tensor
    since: int = 0
    start: int | None = None


@dataclass(frozen=True)
class Place:
    """Which site and layer an attention module is; `ruler` makes T5's biases of the site."""

    site: str
    layer: int
    ruler: Any = None


@dataclass(frozen=True)
class View:
    """One forward pass: what is there beside the own tokens, by site, and where those stand.

    `own` collects the tokens' own keys and values by (site, layer), `[2, T, H_kv, D]`.
    """

    places: Mapping[nn.Module, Place]
    extras: Mapping[str, Sequence[Extra]]
    positions: Mapping[str, Tensor]
    own: dict[tuple[str, int], Tensor]


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    slow_view: View,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """`[1, H, T, D]` in, `[1, T, H, D]` out."""
    assert attention_mask is None, "the table below is all that masks"
    assert len(query) == 1, "one request at a time"
    place = slow_view.places[module]
    extras = slow_view.extras.get(place.site, ())
    slow_view.own[place.site, place.layer] = torch.stack([key[0], value[0]]).transpose(1, 2)
    keys = torch.cat([*(e.kv[place.layer, 0].transpose(0, 1) for e in extras), key[0]], dim=1)
    values = torch.cat([*(e.kv[place.layer, 1].transpose(0, 1) for e in extras), value[0]], dim=1)
    share = query.shape[1] // keys.shape[0]
    keys, values = keys.repeat_interleave(share, 0), values.repeat_interleave(share, 0)
    scores = query[0] @ keys.mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if place.ruler is not None:
        scores = scores + _bias(place, extras, slow_view.positions[place.site])
    seen = _seen(place.site, extras, slow_view.positions, key.shape[2], sliding_window)
    weights = scores.masked_fill(~seen, -math.inf).softmax(dim=-1)
    return (weights @ values).transpose(0, 1)[None], None


def _seen(
    site: str,
    extras: Sequence[Extra],
    positions: Mapping[str, Tensor],
    own: int,
    window: int | None,
) -> Tensor:
    """`[T, extra keys + own keys]`: causal in the decoder, everything elsewhere."""
    queries = len(positions["decoder" if site == "cross" else site])
    order = torch.arange(queries)[:, None]
    parts = [(order >= extra.since).expand(-1, extra.kv.shape[2]) for extra in extras]
    if site != "decoder":
        return torch.cat([*parts, torch.ones(queries, own, dtype=torch.bool)], dim=1)
    seen = torch.cat([*parts, order >= torch.arange(own)], dim=1)
    if window is None:
        return seen
    keys, known = _key_positions(extras, positions[site])
    near = positions[site][:, None] - keys < window
    return seen & (near | ~known)


def _bias(place: Place, extras: Sequence[Extra], positions: Tensor) -> Tensor:
    """`[H, T, keys]`: T5's bias by distance, none for keys outside the position system."""
    ruler = place.ruler
    keys, known = _key_positions(extras, positions)
    buckets = ruler._relative_position_bucket(
        keys - positions[:, None],
        bidirectional=place.site == "encoder",
        num_buckets=ruler.relative_attention_num_buckets,
        max_distance=ruler.relative_attention_max_distance,
    )
    bias: Tensor = ruler.relative_attention_bias(buckets).permute(2, 0, 1)
    return bias * known


def _key_positions(extras: Sequence[Extra], own: Tensor) -> tuple[Tensor, Tensor]:
    """Of all keys, and which of them have one."""
    keys, known = [], []
    for extra in extras:
        tokens = torch.arange(extra.kv.shape[2])
        keys.append(tokens + (extra.start or 0))
        known.append(torch.full_like(tokens, extra.start is not None, dtype=torch.bool))
    return torch.cat([*keys, own]), torch.cat([*known, torch.ones_like(own, dtype=torch.bool)])


AttentionInterface.register(NAME, _attend)
