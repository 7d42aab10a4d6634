"""Beam search is transformers' own, and by choice that of 2020: sequences, order and scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.beam_models import BeamModel, Tokens, search, search_of_2020

from prefixmux_server.engine.beams import BeamSearch, BeamStep, NonFiniteLogits
from prefixmux_server.engine.messages import BeamOutput
from prefixmux_server.engine.params import BeamParams, EarlyStopping, SamplingParams

EOS = frozenset({2})
WORDS = 23
MODELS = [BeamModel.make(WORDS, seed=seed) for seed in range(4)]
EARLY: list[EarlyStopping] = ["yes", "no", "never"]


@st.composite
def beam_params(draw: st.DrawFn, *, most: int = 8) -> BeamParams:
    num_beams = draw(st.integers(1, most))
    return BeamParams(
        num_beams=num_beams,
        length_penalty=draw(st.sampled_from([-1.0, 0.0, 0.6, 1.0, 1.4, 2.0])),
        early_stopping=draw(st.sampled_from(EARLY)),
        num_return=draw(st.integers(1, num_beams)),
    )


@st.composite
def searches(draw: st.DrawFn) -> SamplingParams:
    max_new_tokens = draw(st.integers(1, 12))
    ignore_eos = draw(st.sampled_from([False, False, False, True]))
    shortest = 0 if ignore_eos else max_new_tokens
    return SamplingParams(
        max_new_tokens=max_new_tokens,
        min_new_tokens=draw(st.sampled_from([0, 0, 0, draw(st.integers(0, shortest))])),
        repetition_penalty=draw(st.sampled_from([1.0, 1.0, 1.3, 0.7])),
        frequency_penalty=draw(st.sampled_from([0.0, 0.0, 0.4, -0.3])),
        presence_penalty=draw(st.sampled_from([0.0, 0.0, 0.5])),
        stop_token_ids=draw(st.sampled_from([(), (), (5,), (5, 9)])),
        ignore_eos=ignore_eos,
        no_repeat_ngram_size=draw(st.integers(0, 3)),
        forced_bos_token_id=draw(st.sampled_from([None, None, 7])),
        forced_eos_token_id=draw(st.sampled_from([None, None, 2, 8])),
        beams=draw(beam_params()),
    )


prompts = st.lists(st.integers(3, WORDS - 1), min_size=1, max_size=6).map(tuple)
biases = st.sampled_from([-4.0, 0.0, 2.0, 4.0, 7.0])


def check(found: tuple[BeamOutput, ...], expected: list[tuple[tuple[int, ...], float]]) -> None:
    assert [output.token_ids for output in found] == [tokens for tokens, _ in expected]
    scores = [score for _, score in expected]
    assert [output.score for output in found] == pytest.approx(scores, rel=1e-5, abs=1e-5)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(model=st.sampled_from(MODELS), params=searches(), prompt=prompts, bias=biases)
def test_equal_to_transformers(
    model: BeamModel, params: SamplingParams, prompt: tuple[int, ...], bias: float
) -> None:
    model.favour(EOS.union(params.stop_token_ids), bias)
    check(search(model.logits, params, prompt, EOS), model.generate(params, prompt, EOS))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    model=st.sampled_from(MODELS),
    beams=beam_params(),
    prompt=prompts,
    bias=biases,
    longest=st.integers(1, 12),
    shortest=st.sampled_from([0, 0, 3]),
    ngram=st.sampled_from([0, 0, 2]),
    forced=st.sampled_from([None, 2]),
)
def test_equal_to_the_code_of_2020(
    model: BeamModel,
    beams: BeamParams,
    prompt: Tokens,
    bias: float,
    longest: int,
    shortest: int,
    ngram: int,
    forced: int | None,
) -> None:
    early: EarlyStopping = "no" if beams.early_stopping == "never" else beams.early_stopping
    params = SamplingParams(
        max_new_tokens=longest,
        min_new_tokens=min(shortest, longest - 1),
        no_repeat_ngram_size=ngram,
        forced_eos_token_id=forced,
        beams=replace(beams, early_stopping=early, length_includes_prompt=True),
    )
    model.favour(EOS, bias)
    found = search(model.logits, params, prompt, EOS)
    check(found, search_of_2020(model.logits, params, prompt, EOS))


def test_the_two_rules_differ() -> None:
    """A short answer is dear where the prompt counts for nothing, and cheap where it does."""
    table = torch.full((WORDS, WORDS), -9.0)
    table[4, [2, 6]] = torch.tensor([0.0, 0.4])
    table[6, [2, 6]] = torch.tensor([0.0, 0.4])

    def logits_of(sequences: Sequence[Tokens]) -> torch.Tensor:
        return table[[tokens[-1] for tokens in sequences]]

    def best(*, includes: bool) -> Tokens:
        beams = BeamParams(num_beams=4, length_includes_prompt=includes)
        params = SamplingParams(max_new_tokens=9, beams=beams)
        return search(logits_of, params, (3,) * 30 + (4,), EOS)[0].token_ids

    assert best(includes=True) == (2,)
    assert best(includes=False) == (6,) * 9


def fixed(*rows: Sequence[float]) -> Callable[[Sequence[Tokens]], torch.Tensor]:
    """The same logits for every beam; row n for the n-th new token, the last one ever after."""

    def logits_of(sequences: Sequence[Tokens]) -> torch.Tensor:
        row = rows[min(len(sequences[0]) - 1, len(rows) - 1)]
        return torch.tensor([row] * len(sequences))

    return logits_of


def test_why_a_sequence_is_complete() -> None:
    params = SamplingParams(
        2, stop_token_ids=(1,), beams=BeamParams(3, early_stopping="never", num_return=3)
    )
    found = search(fixed([3.0, 2.5, 2.2]), params, (0,), EOS)
    assert [(output.token_ids, output.reason) for output in found] == [
        ((0, 0), "length"),
        ((0, 1), "stop"),
        ((0, 2), "eos"),
    ]


def test_a_forced_first_token_leaves_one_beam() -> None:
    params = SamplingParams(5, forced_bos_token_id=7, beams=BeamParams(4))
    beams = BeamSearch(params, (3,), EOS)
    assert beams.advance(torch.zeros(1, WORDS)) == BeamStep((0,), (7,))
    assert beams.width == 1
    step = beams.advance(torch.arange(float(WORDS))[None])
    assert step == BeamStep((0, 0, 0, 0), (22, 21, 20, 19))
    assert beams.width == 4


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("forced", [None, 2])
def test_logits_that_are_not_finite(value: float, forced: int | None) -> None:
    """They are told apart from a ban, and the search may be asked again."""
    params = SamplingParams(2, forced_eos_token_id=forced, beams=BeamParams(3, num_return=3))
    beams, other = (BeamSearch(params, (3,), EOS) for _ in range(2))
    logits = torch.randn(3, WORDS, generator=torch.Generator().manual_seed(1))
    for each in (beams, other):
        each.advance(logits[:1])
    broken = logits.clone()
    broken[1, :] = value
    kept = broken.clone()
    if value != float("-inf"):
        broken[1, 1:] = logits[1, 1:]
    with pytest.raises(NonFiniteLogits):
        beams.advance(broken)
    with pytest.raises(NonFiniteLogits):
        beams.advance(kept)
    assert beams.advance(logits) is None
    assert other.advance(logits) is None
    assert beams.results() == other.results()


def test_a_model_s_own_bans_are_not_errors() -> None:
    row = [float("-inf")] * WORDS
    row[5] = row[6] = 1.0
    params = SamplingParams(3, beams=BeamParams(8, num_return=8))
    found = search(fixed(row), params, (3,), EOS)
    assert len(found) == 8
    assert {token for output in found for token in output.token_ids} == {5, 6}


@pytest.mark.parametrize("includes", [False, True])
@pytest.mark.parametrize("prompt", [(0,), (0, 1, 3)])
def test_where_everything_is_banned_the_beams_are_the_answer(
    prompt: Tokens, includes: bool
) -> None:
    beams = BeamParams(2, num_return=2, length_includes_prompt=includes)
    params = SamplingParams(9, min_new_tokens=9, no_repeat_ngram_size=1, beams=beams)
    found = search(fixed([3.0, 2.0, 1.0, 0.0]), params, prompt, EOS)
    missing = {1, 3} - set(prompt)
    assert {frozenset(output.token_ids) for output in found} == {frozenset(missing)}
    assert {output.reason for output in found} == {"length"}
    assert len(found) == max(len(missing), 1)


def test_a_search_that_finds_less_than_asked_for() -> None:
    """Both beams end at the first token that they may choose, and there are no others."""
    params = SamplingParams(9, no_repeat_ngram_size=1, beams=BeamParams(3, num_return=3))
    found = search(fixed([0.0, 0.0, 1.0]), params, (0, 1), EOS)
    assert [(output.token_ids, output.reason) for output in found] == [((2,), "eos")]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scores_are_added_up_in_float32(dtype: torch.dtype) -> None:
    logits = torch.randn(WORDS, generator=torch.Generator().manual_seed(2)).to(dtype)
    params = SamplingParams(6, ignore_eos=True, beams=BeamParams(3))
    (best,) = search(lambda rows: logits.expand(len(rows), -1), params, (3,), EOS)
    expected = logits.double().log_softmax(0).max()
    assert best.score == pytest.approx(float(expected), abs=1e-5)


def test_logits_are_left_as_they_are() -> None:
    logits = torch.ones(1, WORDS)
    params = SamplingParams(6, repetition_penalty=2.0, min_new_tokens=3, beams=BeamParams(3))
    BeamSearch(params, (3,), EOS).advance(logits)
    assert torch.equal(logits, torch.ones(1, WORDS))
