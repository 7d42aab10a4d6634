"""Attention over plain lists, one query at a time, in float64: no layout, no page, no table.

A second opinion on what the model wrapper asks for, independent of every backend. Rows keep their
keys and values in lists; rules are applied as they are written down, one key after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from prefixmux_server.attention.rules import ScoreRules
from prefixmux_server.memory.layout import SiteSpec

Place = int | None  # a position; None: outside the position system


@dataclass
class Cell:
    """One key and value `[H_kv, D]` of one layer, and where it stands."""

    key: Tensor
    value: Tensor
    place: Place


@dataclass
class ListedRow:
    """What one row has at one site, by layer; a prefix `[L, 2, P, H_kv, D]` comes first.

    With `offset` the prefix stands at the positions before the row's own tokens.
    """

    prefix: Tensor | None = None
    offset: int = 0
    cells: dict[int, list[Cell]] = field(default_factory=dict)

    def layer(self, number: int) -> list[Cell]:
        if number not in self.cells:
            kv = [] if self.prefix is None else list(self.prefix[number].transpose(0, 1))
            self.cells[number] = [
                Cell(key, value, at if self.offset else None) for at, (key, value) in enumerate(kv)
            ]
        return self.cells[number]


@dataclass(frozen=True)
class Part:
    """A row's share of a step: its queries, the keys it stores, and the positions of these.

    `causal`: query i is key i, and sees nothing after itself. Queries that are no keys (cross
    attention's) have no positions.
    """

    row: ListedRow
    queries: range
    keys: range
    places: Sequence[int]
    causal: bool


@dataclass(frozen=True)
class ListedPlan:
    """One site's attention in one step. `sizes` are the (T, S) that it was asked with."""

    spec: SiteSpec
    parts: Sequence[Part]
    sizes: list[tuple[int, int]] = field(default_factory=list)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        heads, tokens, width = query.shape
        self.sizes.append((tokens, key.shape[1]))
        out = torch.full((tokens, heads, width), float("nan"), dtype=torch.float64)
        for part in self.parts:
            cells = part.row.layer(layer)
            before = len(cells)
            cells += [
                Cell(key[:, at].clone(), value[:, at].clone(), place)
                for at, place in zip(part.keys, part.places, strict=False)
            ]
            for index, token in enumerate(part.queries):
                seen = cells[: before + index + 1] if part.causal else cells
                place = part.places[index] if index < len(part.places) else 0
                out[token] = _one(self.spec.rule(layer), query[:, token], place, seen, scaling)
        return out.to(query.dtype)


def _one(
    rule: ScoreRules, query: Tensor, place: int, cells: Sequence[Cell], scaling: float
) -> Tensor:
    """`[H, D]` for one query `[H, D]` at a position."""
    near = [c for c in cells if _visible(rule, place, c.place)]
    share = query.shape[0] // near[0].key.shape[0]
    keys = torch.stack([c.key.double() for c in near]).repeat_interleave(share, dim=1)
    values = torch.stack([c.value.double() for c in near]).repeat_interleave(share, dim=1)
    scores = torch.einsum("shd,hd->hs", keys, query.double()) * scaling
    if rule.softcap is not None:
        scores = rule.softcap * torch.tanh(scores / rule.softcap)
    if rule.bias is not None:
        table, reach = rule.bias.table.double(), rule.bias.reach
        for at, cell in enumerate(near):
            if cell.place is not None:
                scores[:, at] += table[:, max(-reach, min(reach, cell.place - place)) + reach]
    return torch.einsum("hs,shd->hd", scores.softmax(-1), values)


def _visible(rule: ScoreRules, query: int, key: Place) -> bool:
    return rule.window is None or key is None or query - key < rule.window
