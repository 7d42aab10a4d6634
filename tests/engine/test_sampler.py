"""The choice of a token: reproducible, alone as in a batch, and never an exception."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from support.engines import answer
from support.tiny import Tiny, ask

from prefixmux_server.engine.params import SamplingParams
from prefixmux_server.engine.sampling.draw import uniform
from prefixmux_server.engine.sampling.sampler import Sampler, Silence
from prefixmux_server.engine.sampling.shaping import SamplingRow
from prefixmux_server.memory.select import LayoutName

EOS = frozenset({2})
WORDS = 40
LOGITS = torch.randn(WORDS, generator=torch.Generator().manual_seed(5)) * 4
BEST = int(LOGITS.argmax())


def choose(
    logits: torch.Tensor = LOGITS, output: tuple[int, ...] = (), **params: Any
) -> int | Silence:
    params.setdefault("max_new_tokens", 9)
    prompt = tuple(token for token in (1, 4, 5) if token < len(logits))
    row = SamplingRow(SamplingParams(**params), prompt, output)
    (token,) = Sampler(EOS).sample(logits[None], [row])
    return token


tiny_or_not = st.floats(min_value=0, exclude_min=True, max_value=10)
shares = st.floats(min_value=0, exclude_min=True, max_value=1)


@given(
    temperature=st.floats(0, 10),
    top_k=st.integers(0, WORDS),
    top_p=shares,
    min_p=st.floats(0, 1),
    repetition_penalty=tiny_or_not,
    frequency_penalty=st.floats(-2, 2),
    presence_penalty=st.floats(-2, 2),
    seed=st.integers(0, 2**63 - 1),
    min_new_tokens=st.integers(0, 9),
    scale=st.sampled_from([0.0, 1.0, 1e4, 1e30]),
    banned=st.booleans(),
)
@example(1e-40, 0, 1.0, 0.1, 1.0, 0.0, 0.0, 0, 0, 1.0, False)
@example(5e-324, 3, 0.5, 1.0, 5e-324, 2.0, 2.0, 2**63 - 1, 9, 1e30, True)
@example(1.0, 0, 1.0, 0.1, 1e-300, 0.0, 0.0, 0, 0, 0.0, False)
def test_whatever_is_allowed_gives_a_token(
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    repetition_penalty: float,
    frequency_penalty: float,
    presence_penalty: float,
    seed: int,
    min_new_tokens: int,
    scale: float,
    banned: bool,
) -> None:
    """One client's odd numbers must not end a step that serves sixty-three others."""
    logits = LOGITS * scale
    if banned:
        logits[10:] = float("-inf")
    token = choose(
        logits,
        (7, 7, 8),
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        frequency_penalty=frequency_penalty,
        presence_penalty=presence_penalty,
        seed=seed,
        min_new_tokens=min_new_tokens,
    )
    assert not isinstance(token, Silence)
    assert 0 <= token < (10 if banned else WORDS)
    assert token != 2 or min_new_tokens <= 3


@pytest.mark.parametrize(
    "narrow",
    [
        {"temperature": 0.0},
        {"temperature": 1e-40},
        {"temperature": 1e-6},
        {"temperature": 2.0, "top_k": 1},
        {"temperature": 2.0, "top_p": 1e-9},
        {"temperature": 2.0, "min_p": 1.0},
    ],
)
def test_narrow_choices_are_greedy(narrow: dict[str, Any]) -> None:
    assert {choose(seed=seed, **narrow) for seed in range(30)} == {BEST}


def test_the_next_best_where_the_best_is_banned() -> None:
    row = LOGITS.clone()
    row[2] = 1000.0
    assert choose(row) == 2
    assert choose(row, min_new_tokens=1) == BEST
    assert choose(row, min_new_tokens=1, stop_token_ids=(BEST,)) not in (2, BEST)


def test_end_tokens_that_the_model_does_not_have() -> None:
    """A configuration may name end tokens beyond the vocabulary: they need no ban."""
    row = SamplingRow(SamplingParams(9, min_new_tokens=5), (3,), ())
    assert Sampler(frozenset({2, 50256})).sample(LOGITS[None], [row]) == [BEST]


def test_penalties() -> None:
    row = torch.tensor([2.0, 1.9, -1.0, 0.0])
    assert choose(row) == 0
    assert choose(row, (0,), presence_penalty=0.2) == 1
    assert choose(row, (0,), frequency_penalty=0.05) == 0
    assert choose(row, (0, 0, 0), frequency_penalty=0.05) == 1
    assert choose(row, (), frequency_penalty=2.0, presence_penalty=2.0) == 0
    assert choose(row, (0,), repetition_penalty=1.2) == 0
    assert choose(torch.tensor([2.0, -1.0, 1.9]), (0,), repetition_penalty=1.2) == 2
    assert choose(torch.tensor([-2.0, -2.9, -2.1]), (0,), repetition_penalty=1.2) == 2


def test_noise_depends_on_seed_and_step_alone() -> None:
    params: dict[str, Any] = {"temperature": 1.5, "seed": 11}
    alone = [choose(output=(7,) * step, **params) for step in range(20)]
    assert alone == [choose(output=(7,) * step, **params) for step in range(20)]
    assert len(set(alone)) > 3
    logits = torch.stack([LOGITS * (n + 1) for n in range(4)] + [LOGITS])
    rows = [SamplingRow(SamplingParams(9, temperature=1.0, seed=n), (3,), ()) for n in range(4)]
    rows.append(SamplingRow(SamplingParams(9, **params), (1, 4, 5), (7,)))
    assert Sampler(EOS).sample(logits, rows)[-1] == alone[1]


def test_draws_follow_the_probabilities() -> None:
    row = torch.tensor([0.0, 1.0, 2.0, -1.0])
    drawn = Counter(choose(row, temperature=0.7, seed=seed) for seed in range(4000))
    for word, probability in enumerate((row / 0.7).softmax(0).tolist()):
        assert drawn[word] / 4000 == pytest.approx(probability, abs=0.03)


def test_uniform_numbers_stay_below_one() -> None:
    numbers = [uniform(seed, 0, step) for seed in (0, 1, 2**64 - 1) for step in range(500)]
    assert all(0 <= number < 1 for number in numbers)
    assert 0.45 < sum(numbers) / len(numbers) < 0.55


def test_sampled_text_is_the_same_alone_and_in_a_crowd(tiny: Tiny, layout: LayoutName) -> None:
    parts = tiny.engine(layout, source=tiny.source(a=10), tokens=16)
    options: dict[str, Any] = {"temperature": 0.9, "top_k": 30, "top_p": 0.95, "new": 16}
    requests = [ask(f"{n}", *["a"][: n % 2], seed=n, **options) for n in range(8)]
    alone = [answer(parts.engine, [request]).tokens[request.id] for request in requests]
    crowd = answer(parts.engine, requests).tokens
    assert [crowd[request.id] for request in requests] == alone


def test_one_client_s_odd_numbers_end_no_one_s_step(tiny: Tiny, layout: LayoutName) -> None:
    parts = tiny.engine(layout)
    odd = ask("odd", temperature=1e-40, min_p=0.1)
    plain = ask("plain")
    answers = answer(parts.engine, [odd, plain])
    assert answers.tokens["plain"] == tiny.expected(parts.source, plain)
    assert answers.tokens["odd"] == tiny.expected(parts.source, odd)
