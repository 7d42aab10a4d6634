"""Random ragged batches, run by either backend and held against the formula."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from support.eager import eager
from torch import Tensor

from prefixmux_server.attention.base import StepPlan
from prefixmux_server.attention.gather import GatherPlan, TableRow
from prefixmux_server.attention.pages import PagedRow, PagesPlan
from prefixmux_server.attention.rules import OUTSIDE, PLAIN, RelativeBias, ScoreRules
from prefixmux_server.memory.select import LayoutName

LAYERS = 2
PAGE = 16
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 4e-2}


@dataclass(frozen=True)
class Row:
    """`seen` cells are stored before the step, then `count` tokens are stored in it; with nothing
    to ask it sits this step out.

    Its own new tokens ask, causally; or so many `readers`, which see the whole row. Cells in
    `outside` have no place in the position system, the others follow each other from 0. What it
    holds is drawn from `seed`, whatever the batch is; of an `ill` row all of it is NaN.
    """

    seen: int
    count: int
    seed: int
    readers: int | None = None
    outside: range = range(0)
    ill: bool = False

    @property
    def length(self) -> int:
        return self.seen + self.count

    @property
    def causal(self) -> bool:
        return self.readers is None

    @property
    def asked(self) -> int:
        return self.count if self.readers is None else self.readers

    @property
    def positions(self) -> list[int | None]:
        inside = iter(range(self.length))
        return [None if cell in self.outside else next(inside) for cell in range(self.length)]

    @property
    def places(self) -> Tensor:
        """The same, as layouts say it."""
        return torch.tensor([OUTSIDE if place is None else place for place in self.positions])


@dataclass(frozen=True)
class Shape:
    heads: int
    kv_heads: int
    k_dim: int
    v_dim: int
    dtype: torch.dtype = torch.float32
    scaling: float = 0.31
    rules: tuple[ScoreRules, ...] = (PLAIN, PLAIN)

    @property
    def positional(self) -> bool:
        return any(rule.positional for rule in self.rules)


def bias_of(heads: int, reach: int, seed: int = 0) -> RelativeBias:
    """Of another value at every distance up to `reach`."""
    generator = torch.Generator().manual_seed(seed)
    return RelativeBias(torch.randn(heads, 2 * reach + 1, generator=generator) * 2)


@dataclass(frozen=True)
class Content:
    """Of one row and layer: `keys` `[length, H_kv, D_k]`, `query` `[H, asked, D_k]`."""

    query: Tensor
    keys: Tensor
    values: Tensor


def content(row: Row, shape: Shape, layer: int) -> Content:
    generator = torch.Generator().manual_seed(1000 * row.seed + layer)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(shape.dtype)

    keys = draw(row.length, shape.kv_heads, shape.k_dim)
    values = draw(row.length, shape.kv_heads, shape.v_dim)
    if row.ill:
        keys, values = keys * math.nan, values * math.nan
    return Content(draw(shape.heads, row.asked, shape.k_dim), keys, values)


@dataclass(frozen=True)
class Dealt:
    """A row in its batch: which queries are its own, and which of the new keys and values."""

    row: Row
    queries: Sequence[int]
    written: range


def deal(rows: Sequence[Row], shuffled: random.Random | None = None) -> list[Dealt]:
    """Rows in order; readers of one row may stand anywhere in the batch, if so told."""
    tokens = list(range(sum(row.asked for row in rows)))
    if shuffled is not None:
        shuffled.shuffle(tokens)
    dealt, asked, written = [], 0, 0
    for row in rows:
        own = range(asked, asked + row.asked)
        queries = own if shuffled is None else sorted(tokens[token] for token in own)
        dealt.append(Dealt(row, queries, range(written, written + row.count)))
        asked, written = asked + row.asked, written + row.count
    return dealt


def pages_plan(dealt: Sequence[Dealt], shape: Shape) -> StepPlan:
    """Pages dealt at random; cells that a row does not own yet hold finite rubbish."""
    needs = [max(1, -(-part.row.length // PAGE)) for part in dealt]
    order = list(range(sum(needs)))
    random.Random(0).shuffle(order)
    stored = (LAYERS, len(order), shape.kv_heads, PAGE)
    keys = torch.full((*stored, shape.k_dim), 7.0, dtype=shape.dtype)
    values = torch.full((*stored, shape.v_dim), -5.0, dtype=shape.dtype)
    running = []
    for part, need in zip(dealt, needs, strict=True):
        row, pages = part.row, [order.pop() for _ in range(need)]
        for layer in range(LAYERS):
            kv = content(row, shape, layer)
            for cell in range(row.seen):
                keys[layer, pages[cell // PAGE], :, cell % PAGE] = kv.keys[cell]
                values[layer, pages[cell // PAGE], :, cell % PAGE] = kv.values[cell]
        places = row.places if shape.positional else None
        if row.asked:
            running.append(
                PagedRow(pages, part.queries, part.written, row.length, row.causal, places)
            )
    return PagesPlan(keys, values, running, shape.rules)


def gather_plan(dealt: Sequence[Dealt], shape: Shape) -> StepPlan:
    """One pool, slots dealt at random; what nobody owns is NaN, slot 0 is zero."""
    order = list(range(1, sum(part.row.length for part in dealt) + 20))
    random.Random(0).shuffle(order)
    stored = (LAYERS, len(order) + 1, shape.kv_heads)
    keys = torch.full((*stored, shape.k_dim), float("nan"), dtype=shape.dtype)
    values = torch.full((*stored, shape.v_dim), float("nan"), dtype=shape.dtype)
    keys[:, 0], values[:, 0] = 0, 0
    table = []
    for part in dealt:
        row = part.row
        slots = torch.tensor([order.pop() for _ in range(row.length)], dtype=torch.long)
        for layer in range(LAYERS):
            kv = content(row, shape, layer)
            keys[layer, slots[: row.seen]] = kv.keys[: row.seen]
            values[layer, slots[: row.seen]] = kv.values[: row.seen]
        places = row.places if shape.positional else None
        if row.asked:
            table.append(TableRow(part.queries, part.written, slots, row.causal, places))
    return GatherPlan(keys, values, table, shape.rules)


def attend(name: LayoutName, dealt: Sequence[Dealt], shape: Shape) -> list[list[Tensor]]:
    """By layer and asking row: `[asked, H, D_v]`."""
    plan = pages_plan(dealt, shape) if name == "rows" else gather_plan(dealt, shape)
    running = [part for part in dealt if part.row.asked]
    found = []
    for layer in range(LAYERS):
        tokens = sum(part.row.asked for part in running)
        query = torch.zeros(shape.heads, tokens, shape.k_dim, dtype=shape.dtype)
        fresh = [torch.zeros(0, shape.kv_heads, shape.k_dim, dtype=shape.dtype)]
        given = [torch.zeros(0, shape.kv_heads, shape.v_dim, dtype=shape.dtype)]
        for part in running:
            kv = content(part.row, shape, layer)
            query[:, part.queries] = kv.query
            fresh.append(kv.keys[part.row.seen :])
            given.append(kv.values[part.row.seen :])
        keys, values = torch.cat(fresh).transpose(0, 1), torch.cat(given).transpose(0, 1)
        out = plan.attend(layer, query, keys, values, shape.scaling)
        found.append([out[list(part.queries)] for part in running])
    return found


def check(name: LayoutName, dealt: Sequence[Dealt], shape: Shape) -> None:
    running = [part.row for part in dealt if part.row.asked]
    for layer, results in enumerate(attend(name, dealt, shape)):
        for row, found in zip(running, results, strict=True):
            kv, rule = content(row, shape, layer), shape.rules[layer]
            wanted = eager(
                kv.query, kv.keys, kv.values, shape.scaling, rule, row.positions, causal=row.causal
            )
            assert found.dtype == shape.dtype
            tolerance = TOLERANCE[shape.dtype]
            torch.testing.assert_close(found.double(), wanted, atol=tolerance, rtol=tolerance)
