"""Rows that are written once and then only read, whole and by anybody: cross attention's."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from memory.ragged import Row, Shape, attend, check, deal

from prefixmux_server.attention.rules import PLAIN, ScoreRules
from prefixmux_server.memory.select import LayoutName

HEADS = ((4, 4), (4, 2), (3, 1))


def random_reads(rng: random.Random) -> list[Row]:
    """Of several lengths; some are filled in this step, behind a prefix or not, some wait."""
    rows = []
    for number in range(rng.randrange(1, 8)):
        cells = rng.choice([1, 2, 30, 63, 64, 65, rng.randrange(1, 130)])
        prefix = rng.choice([0, 0, 3, 64])
        fresh = rng.random() < 0.4
        readers = rng.choice([1, 1, 2, 4, 16, 17, rng.randrange(1, 21)])
        if fresh:
            rows.append(Row(prefix, cells, number, readers))
        else:
            rows.append(Row(prefix + cells, 0, number, rng.choice([0, readers])))
    return rows if any(row.asked for row in rows) else [*rows, Row(5, 2, 99, 3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("rule", [PLAIN, ScoreRules(softcap=1.5)], ids=["plain", "softcap"])
@pytest.mark.parametrize("heads", HEADS, ids=lambda h: f"{h[0]}over{h[1]}")
def test_equals_the_formula(
    name: LayoutName, heads: tuple[int, int], rule: ScoreRules, dtype: torch.dtype
) -> None:
    """Readers of one row stand next to each other, or anywhere in the batch."""
    shape = Shape(*heads, 16, 8, dtype, rules=(rule, PLAIN))
    for seed in range(3):
        rng = random.Random(f"{heads} {seed}")
        check(name, deal(random_reads(rng), rng if seed else None), shape)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(300))
def test_equals_the_formula_in_many_batches(name: LayoutName, seed: int) -> None:
    rng = random.Random(seed)
    rules = (PLAIN, ScoreRules(softcap=rng.uniform(0.5, 9.0)))
    shape = Shape(*rng.choice(HEADS), 8, 16, scaling=rng.uniform(0.05, 1.5), rules=rules)
    check(name, deal(random_reads(rng), rng), shape)


@pytest.mark.parametrize("readers", range(1, 21))
def test_any_number_of_readers(name: LayoutName, readers: int) -> None:
    """Few are computed with the other rows, many alone; the first reader sees the last
    cell."""
    rows = [Row(40, 0, 1, readers), Row(3, 17, 2, 1), Row(20, 0, 3, 21 - readers)]
    check(name, deal(rows, random.Random(readers)), Shape(4, 2, 8, 8))


def test_a_step_that_only_writes_for_later(name: LayoutName) -> None:
    """Nobody reads what is stored now: the plan stores it, and has nothing to say."""
    shape = Shape(4, 2, 8, 8)
    rows = [Row(2, 9, 1, 0), Row(5, 0, 2, 2)]
    check(name, deal(rows), shape)


@pytest.mark.parametrize("readers", [2, 18])
def test_a_row_that_is_not_finite_stays_alone(name: LayoutName, readers: int) -> None:
    shape = Shape(4, 2, 8, 8)
    for ill in (Row(9, 0, 1, 0), Row(9, 0, 1, readers), Row(3, 6, 1, readers), Row(70, 0, 1, 1)):
        rows = [Row(5, 0, 2, 1), ill, Row(2, 7, 3, 3), Row(64, 1, 4, 17)]
        spoiled = [replace(row, ill=row is ill) for row in rows]
        mixed, whole = attend(name, deal(spoiled), shape), attend(name, deal(rows), shape)
        running = [row for row in rows if row.asked]
        for found, wanted in zip(mixed, whole, strict=True):
            for row, one, other in zip(running, found, wanted, strict=True):
                assert torch.equal(one, other) == (row is not ill)
                assert bool(one.isnan().all()) == (row is ill)
