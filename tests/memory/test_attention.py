"""Both attention backends against the formula, over random ragged batches."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from support.eager import eager
from torch import Tensor

from prefixmux_server.attention.base import StepPlan
from prefixmux_server.attention.gather import GatherPlan, TableRow
from prefixmux_server.attention.rows import RowsPlan, SlabPlan, SlabRow
from prefixmux_server.memory.select import LayoutName

LAYERS = 2
GRAIN = 64
HEADS = ((4, 4), (4, 2), (8, 2), (8, 1), (3, 1))
WIDTHS = ((8, 8), (16, 8), (24, 40), (64, 64), (80, 80))
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 4e-2}


@dataclass(frozen=True)
class Row:
    """`seen` cells are stored before the step, then `count` tokens run; 0: it sits this one out.

    Stored and new keys, values and queries are drawn from `seed`, whatever the batch is.
    """

    seen: int
    count: int
    seed: int

    @property
    def length(self) -> int:
        return self.seen + self.count


@dataclass(frozen=True)
class Shape:
    heads: int
    kv_heads: int
    k_dim: int
    v_dim: int
    dtype: torch.dtype = torch.float32
    scaling: float = 0.31


@dataclass(frozen=True)
class Content:
    """Of one row and layer: `keys` `[length, H_kv, D_k]`, `query` `[H, count, D_k]`."""

    query: Tensor
    keys: Tensor
    values: Tensor


def content(row: Row, shape: Shape, layer: int) -> Content:
    generator = torch.Generator().manual_seed(1000 * row.seed + layer)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(shape.dtype)

    keys = draw(row.length, shape.kv_heads, shape.k_dim)
    values = draw(row.length, shape.kv_heads, shape.v_dim)
    return Content(draw(shape.heads, row.count, shape.k_dim), keys, values)


def slabs_plan(rows: Sequence[Row], shape: Shape) -> StepPlan:
    """Slabs by capacity; cells that a row does not own yet hold finite rubbish."""
    by_cap: dict[int, list[tuple[int, Row]]] = {}
    first = 0
    for row in rows:
        cap = max(1, -(-row.length // GRAIN)) * GRAIN
        by_cap.setdefault(cap, []).append((first, row))
        first += row.count
    plans = []
    for cap, members in by_cap.items():
        stored = (LAYERS, len(members), shape.kv_heads, cap)
        keys = torch.full((*stored, shape.k_dim), 7.0, dtype=shape.dtype)
        values = torch.full((*stored, shape.v_dim), -5.0, dtype=shape.dtype)
        for index, (_, row) in enumerate(members):
            for layer in range(LAYERS):
                kv = content(row, shape, layer)
                keys[layer, index, :, : row.seen] = kv.keys[: row.seen].transpose(0, 1)
                values[layer, index, :, : row.seen] = kv.values[: row.seen].transpose(0, 1)
        running = [
            SlabRow(index, ran := range(start, start + row.count), ran, row.length)
            for index, (start, row) in enumerate(members)
            if row.count
        ]
        if running:
            plans.append(SlabPlan(keys, values, running))
    return RowsPlan(plans)


def gather_plan(rows: Sequence[Row], shape: Shape) -> StepPlan:
    """One pool, slots dealt at random; what nobody owns is NaN, slot 0 is zero."""
    order = list(range(1, sum(row.length for row in rows) + 20))
    random.Random(0).shuffle(order)
    stored = (LAYERS, len(order) + 1, shape.kv_heads)
    keys = torch.full((*stored, shape.k_dim), float("nan"), dtype=shape.dtype)
    values = torch.full((*stored, shape.v_dim), float("nan"), dtype=shape.dtype)
    keys[:, 0], values[:, 0] = 0, 0
    table, first = [], 0
    for row in rows:
        slots = torch.tensor([order.pop() for _ in range(row.length)], dtype=torch.long)
        for layer in range(LAYERS):
            kv = content(row, shape, layer)
            keys[layer, slots[: row.seen]] = kv.keys[: row.seen]
            values[layer, slots[: row.seen]] = kv.values[: row.seen]
        if row.count:
            tokens = range(first, first + row.count)
            table.append(TableRow(tokens, tokens, slots))
        first += row.count
    return GatherPlan(keys, values, table)


def attend(name: LayoutName, rows: Sequence[Row], shape: Shape) -> list[list[Tensor]]:
    """By layer and running row: `[count, H, D_v]`."""
    plan = slabs_plan(rows, shape) if name == "rows" else gather_plan(rows, shape)
    running = [row for row in rows if row.count]
    found = []
    for layer in range(LAYERS):
        parts = [content(row, shape, layer) for row in running]
        fresh = [
            (part.keys[-row.count :], part.values[-row.count :])
            for part, row in zip(parts, running, strict=True)
        ]
        out = plan.attend(
            layer,
            torch.cat([part.query for part in parts], dim=1),
            torch.cat([keys for keys, _ in fresh]).transpose(0, 1),
            torch.cat([values for _, values in fresh]).transpose(0, 1),
            shape.scaling,
        )
        found.append(list(torch.split(out, [row.count for row in running])))
    return found


def random_rows(seed: int) -> list[Row]:
    """Decodes, chunks of prompts and rows that wait, of all lengths and in any order."""
    rng = random.Random(seed)
    rows = []
    for number in range(rng.randrange(1, 9)):
        count = rng.choice([0, 1, 1, 1, 2, 3, rng.randrange(1, 40)])
        rows.append(Row(rng.choice([0, 1, 2, 63, 64, rng.randrange(300)]), count, number))
    return rows if any(row.count for row in rows) else [*rows, Row(5, 1, 99)]


def check(name: LayoutName, rows: Sequence[Row], shape: Shape) -> None:
    running = [row for row in rows if row.count]
    for layer, results in enumerate(attend(name, rows, shape)):
        for row, found in zip(running, results, strict=True):
            kv = content(row, shape, layer)
            wanted = eager(kv.query, kv.keys, kv.values, shape.scaling)
            assert found.dtype == shape.dtype
            torch.testing.assert_close(
                found.double(), wanted, atol=TOLERANCE[shape.dtype], rtol=TOLERANCE[shape.dtype]
            )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("heads", HEADS, ids=lambda h: f"{h[0]}over{h[1]}")
@pytest.mark.parametrize("widths", WIDTHS, ids=lambda w: f"{w[0]}x{w[1]}")
def test_equals_the_formula(
    name: LayoutName, heads: tuple[int, int], widths: tuple[int, int], dtype: torch.dtype
) -> None:
    shape = Shape(*heads, *widths, dtype)
    for seed in range(2):
        check(name, random_rows(sum(heads) + 10 * sum(widths) + seed), shape)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(300))
def test_equals_the_formula_in_many_batches(name: LayoutName, seed: int) -> None:
    rng = random.Random(seed)
    shape = Shape(*rng.choice(HEADS), *rng.choice(WIDTHS), scaling=rng.uniform(0.05, 1.5))
    check(name, random_rows(seed), shape)


@pytest.mark.parametrize("scaling", [1.0, 0.0, 0.125, -0.5])
def test_scales_as_told(name: LayoutName, scaling: float) -> None:
    check(name, random_rows(3), Shape(4, 2, 16, 16, scaling=scaling))


@pytest.mark.parametrize("length", [1, 63, 64, 65, 128, 300])
def test_a_full_row_and_the_cell_after_it(name: LayoutName, length: int) -> None:
    """Lengths at the borders of a slab's capacity."""
    rows = [Row(length - 1, 1, 1), Row(0, length, 2), Row(length // 2, length - length // 2, 3)]
    check(name, rows, Shape(4, 2, 8, 8))


def test_very_large_scores(name: LayoutName) -> None:
    """Softmax subtracts the maximum first: no overflow where one key wins by thousands."""
    check(name, random_rows(4), Shape(4, 2, 16, 16, scaling=2000.0))


@pytest.mark.parametrize("seed", range(12))
def test_a_decode_s_bits_do_not_depend_on_the_rows_beside_it(seed: int) -> None:
    """In one slab, whatever the others are and do."""
    shape, rng = Shape(8, 2, 16, 16), random.Random(seed)
    row = Row(rng.randrange(64), 1, 77)
    alone = [layer[0] for layer in attend("rows", [row], shape)]
    for size in range(1, 10):
        others = [Row(rng.randrange(40), rng.choice([0, 1, 1, 9]), n) for n in range(size)]
        place = rng.randrange(size + 1)
        mixed = attend("rows", [*others[:place], row, *others[place:]], shape)
        index = sum(1 for other in others[:place] if other.count)
        for layer, expected in zip(mixed, alone, strict=True):
            assert torch.equal(layer[index], expected)
