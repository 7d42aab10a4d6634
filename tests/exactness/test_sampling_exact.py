"""Sampled tokens have exactly the distribution that transformers' own processors define."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from prefixmux_server.engine.params import SamplingParams
from prefixmux_server.engine.sampling.sampler import Sampler, Silence
from prefixmux_server.engine.sampling.shaping import SamplingRow

DRAWS = 20_000
VOCABULARY = 40
PROMPT, OUTPUT = (3, 7, 11), (5, 5, 5, 9)
FIXED = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(1)) * 2
# What was said before is likely to be said again, so that penalties show.
FIXED[[*PROMPT, *OUTPUT[2:]]] = torch.tensor([3.0, 2.5, 2.0, 3.5, 3.0])

SHAPES: dict[str, dict[str, Any]] = {
    "plain": {"temperature": 1.0},
    "cold": {"temperature": 0.6},
    "hot": {"temperature": 2.5},
    "top_k": {"temperature": 1.3, "top_k": 7},
    "top_p": {"temperature": 1.0, "top_p": 0.8},
    "min_p": {"temperature": 1.5, "min_p": 0.15},
    "repetition": {"temperature": 1.0, "repetition_penalty": 1.7},
    "all": {
        "temperature": 1.4,
        "top_k": 20,
        "top_p": 0.9,
        "min_p": 0.05,
        "repetition_penalty": 0.8,
    },
}


def reference(shape: dict[str, Any]) -> torch.Tensor:
    """Probabilities by transformers' own processors, in their own order."""
    steps = LogitsProcessorList()
    if "repetition_penalty" in shape:
        steps.append(RepetitionPenaltyLogitsProcessor(shape["repetition_penalty"]))
    steps.append(TemperatureLogitsWarper(shape["temperature"]))
    for name, warper in (
        ("top_k", TopKLogitsWarper),
        ("top_p", TopPLogitsWarper),
        ("min_p", MinPLogitsWarper),
    ):
        if name in shape:
            steps.append(warper(shape[name]))
    seen = torch.tensor([[*PROMPT, *OUTPUT]])
    scores: torch.Tensor = steps(seen, FIXED.clone()[None])
    return scores[0].double().softmax(0)


def draw(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> Counter[int | Silence]:
    return Counter(Sampler(frozenset()).sample(logits.expand(len(rows), -1), rows))


def by_seed(shape: dict[str, Any]) -> Counter[int | Silence]:
    """One token each of many requests that differ in their seed alone."""
    params = [SamplingParams(max_new_tokens=9, seed=seed, **shape) for seed in range(DRAWS)]
    return draw(FIXED, [SamplingRow(p, PROMPT, OUTPUT) for p in params])


def misfit(found: Counter[int | Silence], expected: torch.Tensor) -> float:
    """Pearson's statistic in units of its bound, which chance exceeds once in 30,000 times.

    Tokens that are expected fewer than five times are counted together.
    """
    assert sum(found.values()) == DRAWS
    often = [token for token in range(len(expected)) if expected[token] * DRAWS >= 5]
    pairs = [(found[token], float(expected[token]) * DRAWS) for token in often]
    rest = DRAWS - sum(count for count, _ in pairs), DRAWS - sum(mean for _, mean in pairs)
    if rest[1] >= 1:
        pairs.append(rest)
    statistic = sum((count - mean) ** 2 / mean for count, mean in pairs)
    return statistic / _bound(len(pairs) - 1)


def _bound(freedom: int) -> float:
    """Wilson and Hilferty's approximation of the quantile at four standard deviations."""
    part = 2 / (9 * freedom)
    return float(freedom * (1 - part + 4 * part**0.5) ** 3)


@pytest.mark.parametrize("name", SHAPES)
def test_frequencies_are_those_of_transformers(name: str) -> None:
    expected, found = reference(SHAPES[name]), by_seed(SHAPES[name])
    assert misfit(found, expected) < 1
    never = [token for token in range(VOCABULARY) if expected[token] == 0]
    assert not any(found[token] for token in never)
    if name != "plain":
        assert misfit(found, reference(SHAPES["plain"])) > 2, "the test would see nothing"


def test_steps_of_one_request_are_as_random_as_seeds() -> None:
    params = SamplingParams(max_new_tokens=9, seed=42, temperature=1.0)
    rows = [SamplingRow(params, (), range(step)) for step in range(DRAWS)]
    assert misfit(draw(FIXED, rows), reference(SHAPES["plain"])) < 1


def test_outputs_of_one_request_are_as_random_as_seeds() -> None:
    """And as independent: what two of them say follows the product of their probabilities."""
    params = SamplingParams(max_new_tokens=9, seed=42, temperature=1.0, n=DRAWS)
    rows = [SamplingRow(params, (), (), index) for index in range(DRAWS)]
    expected = reference(SHAPES["plain"])
    said = Sampler(frozenset()).sample(FIXED.expand(DRAWS, -1), rows)
    assert misfit(Counter(said), expected) < 1
    best = int(expected.argmax())
    both = sum(pair == (best, best) for pair in pairwise(said)) / DRAWS
    assert both == pytest.approx(float(expected[best]) ** 2, rel=0.15)


def test_frequency_and_presence_by_hand() -> None:
    """Token 5 was said three times, 9 once; the prompt's tokens count for nothing."""
    shape = {"temperature": 1.0, "frequency_penalty": 0.5, "presence_penalty": -0.75}
    by_hand = FIXED.double()
    by_hand[5] += 0.75 - 3 * 0.5
    by_hand[9] += 0.75 - 0.5
    found = by_seed(shape)
    assert misfit(found, by_hand.softmax(0)) < 1
    by_hand[list(PROMPT)] += 0.5
    assert misfit(found, by_hand.softmax(0)) > 2


@pytest.mark.parametrize(
    ("penalty", "winner"),
    [
        # Logits 2.0, 1.5, 1.0, -0.5; token 0 was said twice, 1 once, 3 is the prompt.
        ({}, 0),
        ({"frequency_penalty": 0.4}, 0),  # 1.2, 1.1, 1.0
        ({"frequency_penalty": 0.6}, 2),  # 0.8, 0.9, 1.0
        ({"frequency_penalty": 0.45, "presence_penalty": 0.04}, 0),  # 1.06, 1.01, 1.0
        ({"frequency_penalty": 0.45, "presence_penalty": 0.12}, 2),  # 0.98, 0.93, 1.0
        ({"presence_penalty": 0.9}, 0),  # 1.1, 0.6, 1.0
        ({"presence_penalty": 1.1}, 2),  # 0.9, 0.4, 1.0
        ({"frequency_penalty": -0.6}, 0),  # 3.2, 2.1, 1.0
        ({"repetition_penalty": 1.9}, 0),  # 1.05, 0.79, 1.0
        ({"repetition_penalty": 2.1}, 2),  # 0.95, 0.71, 1.0
        ({"repetition_penalty": 0.1}, 0),  # 20, 15, 1, -0.05
    ],
)
def test_greedy_choices_by_hand(penalty: dict[str, float], winner: int) -> None:
    params = SamplingParams(max_new_tokens=9, **penalty)  # type: ignore[arg-type]
    row = SamplingRow(params, (3,), (0, 1, 0))
    assert Sampler(frozenset()).sample(torch.tensor([[2.0, 1.5, 1.0, -0.5]]), [row]) == [winner]


@pytest.mark.parametrize(
    "shape",
    [
        {"temperature": 1e-3},
        {"temperature": 1e-30},
        {"temperature": 1e-45},
        {"temperature": 5.0, "top_k": 1},
        {"temperature": 1.0, "top_p": 1e-9},
        {"temperature": 1.0, "min_p": 1.0},
    ],
)
def test_the_extremes_are_greedy(shape: dict[str, Any]) -> None:
    params = [SamplingParams(max_new_tokens=9, seed=seed, **shape) for seed in range(200)]
    found = draw(FIXED, [SamplingRow(p, (), ()) for p in params])
    assert found == {int(FIXED.argmax()): 200}
