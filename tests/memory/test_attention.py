"""Both attention backends against the formula, over random ragged batches of causal rows."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from memory.ragged import Row, Shape, attend, bias_of, check, deal
from torch.nn.attention import SDPBackend, sdpa_kernel

from prefixmux_server.attention.rules import PLAIN, ScoreRules
from prefixmux_server.memory.select import LayoutName

HEADS = ((4, 4), (4, 2), (8, 2), (8, 1), (3, 1))
WIDTHS = ((8, 8), (16, 8), (24, 40), (64, 64), (80, 80))
RULES: dict[str, Callable[[int], ScoreRules]] = {
    "window": lambda heads: ScoreRules(window=9),
    "window of one": lambda heads: ScoreRules(window=1),
    "softcap": lambda heads: ScoreRules(softcap=1.5),
    "bias": lambda heads: ScoreRules(bias=bias_of(heads, 12)),
    "softcap and window": lambda heads: ScoreRules(window=30, softcap=2.0),
    "all": lambda heads: ScoreRules(window=17, softcap=1.5, bias=bias_of(heads, 40)),
}


def random_rows(seed: int) -> list[Row]:
    """Decodes, chunks of prompts and rows that wait, of all lengths and in any order."""
    rng = random.Random(seed)
    rows = []
    for number in range(rng.randrange(1, 9)):
        count = rng.choice([0, 1, 1, 1, 2, 3, rng.randrange(1, 40)])
        rows.append(Row(rng.choice([0, 1, 2, 63, 64, rng.randrange(300)]), count, number))
    return rows if any(row.count for row in rows) else [*rows, Row(5, 1, 99)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("heads", HEADS, ids=lambda h: f"{h[0]}over{h[1]}")
@pytest.mark.parametrize("widths", WIDTHS, ids=lambda w: f"{w[0]}x{w[1]}")
def test_equals_the_formula(
    name: LayoutName, heads: tuple[int, int], widths: tuple[int, int], dtype: torch.dtype
) -> None:
    shape = Shape(*heads, *widths, dtype)
    for seed in range(2):
        check(name, deal(random_rows(sum(heads) + 10 * sum(widths) + seed)), shape)


def placed(rows: Sequence[Row], rng: random.Random) -> list[Row]:
    """Of each row some cells have no position: a prefix, an infix, or none."""
    found = []
    for row in rows:
        first = rng.choice([0, 0, rng.randrange(row.seen + 1)])
        last = rng.randrange(first, row.seen + 1)
        found.append(replace(row, outside=range(first, rng.choice([first, last]))))
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("kind", RULES)
def test_every_rule_of_a_layer(name: LayoutName, kind: str, dtype: torch.dtype) -> None:
    """The other layer is plain, before it or after it."""
    for seed, heads in enumerate(((4, 4), (6, 2), (3, 1))):
        rng = random.Random(f"{kind} {seed}")
        rules = (RULES[kind](heads[0]), PLAIN)
        shape = Shape(*heads, 16, 8, dtype, rules=rules if seed % 2 else rules[::-1])
        rows = random_rows(seed + 50)
        check(name, deal(placed(rows, rng)), shape)


@pytest.mark.parametrize("window", [1, 2, 64])
def test_a_window_counts_positions_and_not_cells(name: LayoutName, window: int) -> None:
    """Cells that have no position are seen from everywhere, and make no other one farther."""
    rows = [Row(90, 1, 1, outside=range(40)), Row(0, 70, 2), Row(90, 5, 3, outside=range(30, 85))]
    check(name, deal(rows), Shape(4, 2, 8, 8, rules=(ScoreRules(window=window), PLAIN)))


@pytest.mark.parametrize("kind", ["plain", "softcap", "all"])
def test_a_row_that_is_not_finite_stays_alone(name: LayoutName, kind: str) -> None:
    """Whether it runs or waits, beside longer rows and shorter ones."""
    rule = PLAIN if kind == "plain" else RULES[kind](4)
    shape = Shape(4, 2, 8, 8, rules=(rule, rule))
    for ill in (Row(9, 0, 1), Row(9, 1, 1), Row(9, 5, 1), Row(100, 1, 1)):
        rows = [Row(5, 1, 2), ill, Row(0, 7, 3), Row(60, 1, 4), Row(70, 1, 5)]
        spoiled = [replace(row, ill=row is ill) for row in rows]
        mixed, whole = attend(name, deal(spoiled), shape), attend(name, deal(rows), shape)
        running = [row for row in rows if row.count]
        for found, wanted in zip(mixed, whole, strict=True):
            for row, one, other in zip(running, found, wanted, strict=True):
                assert torch.equal(one, other) == (row is not ill)
                assert bool(one.isnan().all()) == (row is ill)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(300))
def test_equals_the_formula_in_many_batches(name: LayoutName, seed: int) -> None:
    rng = random.Random(seed)
    heads = rng.choice(HEADS)
    kinds: list[Callable[[int], ScoreRules]] = [lambda heads: PLAIN, *RULES.values()]
    rules = (rng.choice(kinds)(heads[0]), rng.choice(kinds)(heads[0]))
    widths = rng.choice(WIDTHS)
    shape = Shape(*heads, *widths, scaling=rng.uniform(0.05, 1.5), rules=rules)
    check(name, deal(placed(random_rows(seed), rng)), shape)


@pytest.mark.parametrize("scaling", [1.0, 0.0, 0.125, -0.5])
def test_scales_as_told(name: LayoutName, scaling: float) -> None:
    check(name, deal(random_rows(3)), Shape(4, 2, 16, 16, scaling=scaling))


@pytest.mark.parametrize("length", [1, 63, 64, 65, 128, 300])
def test_a_full_row_and_the_cell_after_it(name: LayoutName, length: int) -> None:
    """Lengths at the borders of pages."""
    rows = [Row(length - 1, 1, 1), Row(0, length, 2), Row(length // 2, length - length // 2, 3)]
    check(name, deal(rows), Shape(4, 2, 8, 8))


@pytest.mark.parametrize("heads", [(4, 4), (4, 2)], ids=["plain", "grouped"])
@pytest.mark.parametrize("kind", ["window", "bias"])
def test_prompts_take_the_fused_kernel(name: LayoutName, heads: tuple[int, int], kind: str) -> None:
    """PyTorch refuses, instead of falling back on its own slow formulas."""
    rows = [Row(40, 30, 1), Row(0, 12, 2)]
    shape = Shape(*heads, 64, 64, torch.bfloat16, rules=(PLAIN, RULES[kind](heads[0])))
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        check(name, deal(rows), shape)


def test_very_large_scores(name: LayoutName) -> None:
    """Softmax subtracts the maximum first: no overflow where one key wins by thousands."""
    check(name, deal(random_rows(4)), Shape(4, 2, 16, 16, scaling=2000.0))


@pytest.mark.parametrize("seed", range(12))
def test_a_decode_s_bits_do_not_depend_on_the_rows_beside_it(seed: int) -> None:
    """Whatever the others are and do."""
    shape, rng = Shape(8, 2, 16, 16), random.Random(seed)
    row = Row(rng.randrange(64), 1, 77)
    alone = [layer[0] for layer in attend("rows", deal([row]), shape)]
    for size in range(1, 10):
        others = [Row(rng.randrange(40), rng.choice([0, 1, 1, 9]), n) for n in range(size)]
        place = rng.randrange(size + 1)
        mixed = attend("rows", deal([*others[:place], row, *others[place:]]), shape)
        index = sum(1 for other in others[:place] if other.count)
        for layer, expected in zip(mixed, alone, strict=True):
            assert torch.equal(layer[index], expected)
