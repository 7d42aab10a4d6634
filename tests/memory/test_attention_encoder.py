"""Encoder attention: each row over its prefixes and itself, both ways, and over nobody else."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from memory.ragged import TOLERANCE, Shape, bias_of
from support.eager import eager
from torch import Tensor

from prefixmux_server.attention.encoder import EncoderPlan, EncoderRow
from prefixmux_server.attention.rules import PLAIN, ScoreRules

LAYERS = 2
RULES = {
    "plain": PLAIN,
    "bias": ScoreRules(bias=bias_of(4, 6)),
    "softcap": ScoreRules(softcap=1.5),
    "both": ScoreRules(softcap=1.5, bias=bias_of(4, 40)),
}


@dataclass(frozen=True)
class Batch:
    """`own` and `query` `[L, heads, T, D]`, of all rows one after another."""

    rows: Sequence[EncoderRow]
    query: Tensor
    keys: Tensor
    values: Tensor


def batch_of(shape: Shape, rows: Sequence[tuple[int, Sequence[int]]]) -> Batch:
    """Rows of so many tokens behind prefixes of so many."""
    generator = torch.Generator().manual_seed(len(rows))

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(shape.dtype)

    made, first = [], 0
    for count, prefixes in rows:
        kv = [draw(LAYERS, 2, length, shape.kv_heads, shape.k_dim) for length in prefixes]
        made.append(EncoderRow(first, count, kv))
        first += count
    return Batch(
        made,
        draw(LAYERS, shape.heads, first, shape.k_dim),
        draw(LAYERS, shape.kv_heads, first, shape.k_dim),
        draw(LAYERS, shape.kv_heads, first, shape.v_dim),
    )


def run(batch: Batch, rules: Sequence[ScoreRules], scaling: float) -> list[Tensor]:
    """By layer, `[T, H, D_v]`."""
    plan = EncoderPlan(batch.rows, rules)
    return [
        plan.attend(layer, batch.query[layer], batch.keys[layer], batch.values[layer], scaling)
        for layer in range(LAYERS)
    ]


def truth(batch: Batch, row: EncoderRow, layer: int, rule: ScoreRules, scaling: float) -> Tensor:
    own = slice(row.first, row.first + row.count)
    keys = [*(p[layer, 0] for p in row.prefixes), batch.keys[layer, :, own].transpose(0, 1)]
    values = [*(p[layer, 1] for p in row.prefixes), batch.values[layer, :, own].transpose(0, 1)]
    places = [*([None] * sum(p.shape[2] for p in row.prefixes)), *range(row.count)]
    query = batch.query[layer, :, own]
    return eager(query, torch.cat(keys), torch.cat(values), scaling, rule, places, causal=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_equals_the_formula(kind: str, kv_heads: int, dtype: torch.dtype) -> None:
    """Behind no prefix, one and several; a prefix without tokens among them."""
    shape = Shape(4, kv_heads, 8, 8, dtype)
    rng = random.Random(kind)
    lengths = [(), (3,), (1, 5), (0,), (9, 2, 9)]
    batch = batch_of(shape, [(rng.randrange(1, 21), rng.choice(lengths)) for _ in range(5)])
    rules = (RULES[kind], PLAIN)
    tolerance = TOLERANCE[dtype]
    for layer, found in enumerate(run(batch, rules, shape.scaling)):
        assert found.dtype == dtype
        for row in batch.rows:
            wanted = truth(batch, row, layer, rules[layer], shape.scaling)
            own = found[row.first : row.first + row.count].double()
            torch.testing.assert_close(own, wanted, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("ill", [0, 2])
def test_a_row_that_is_not_finite_stays_alone(ill: int) -> None:
    shape = Shape(4, 4, 8, 8)
    batch = batch_of(shape, [(4, (3,)), (5, ()), (1, (2, 2)), (6, (4,))])
    whole = run(batch, (RULES["bias"], PLAIN), 0.4)
    batch.rows[ill].prefixes[0].fill_(float("nan"))
    for found, wanted in zip(run(batch, (RULES["bias"], PLAIN), 0.4), whole, strict=True):
        for index, row in enumerate(batch.rows):
            own = slice(row.first, row.first + row.count)
            assert torch.equal(found[own], wanted[own]) == (index != ill)
            assert bool(found[own].isnan().all()) == (index == ill)
