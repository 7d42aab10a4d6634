"""Beam search is transformers' own, and by choice that of 2020: sequences, order and scores."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.beam_models import BeamModel, Tokens, search
from support.beams_2020 import search_of_2020

from prefixmux_server.engine.messages import BeamOutput
from prefixmux_server.engine.params import BeamParams, EarlyStopping, SamplingParams

EOS = frozenset({2})
WORDS = 23
EARLY: list[EarlyStopping] = ["yes", "no", "never"]


@pytest.fixture(scope="module")
def models() -> list[BeamModel]:
    return [BeamModel.make(WORDS, seed=seed) for seed in range(4)]


@st.composite
def beam_params(draw: st.DrawFn) -> BeamParams:
    num_beams = draw(st.integers(1, 8))
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
biases = st.sampled_from([-4.0, 1.0, 2.0, 3.0, 4.0, 6.0])


def check(found: tuple[BeamOutput, ...], expected: list[tuple[tuple[int, ...], float]]) -> None:
    assert [output.token_ids for output in found] == [tokens for tokens, _ in expected]
    scores = [score for _, score in expected]
    assert [output.score for output in found] == pytest.approx(scores, rel=1e-5, abs=1e-5)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(which=st.integers(0, 3), params=searches(), prompt=prompts, bias=biases)
def test_equal_to_transformers(
    models: list[BeamModel], which: int, params: SamplingParams, prompt: Tokens, bias: float
) -> None:
    model = models[which]
    model.favour(EOS.union(params.stop_token_ids), bias)
    check(search(model.logits, params, prompt, EOS), model.generate(params, prompt, EOS))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    which=st.integers(0, 3),
    beams=beam_params(),
    prompt=prompts,
    bias=biases,
    longest=st.integers(1, 12),
    shortest=st.sampled_from([0, 0, 3]),
    ngram=st.sampled_from([0, 0, 2]),
    forced=st.sampled_from([None, 2]),
)
def test_equal_to_the_code_of_2020(
    models: list[BeamModel],
    which: int,
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
    model = models[which]
    model.favour(EOS, bias)
    found = search(model.logits, params, prompt, EOS)
    check(found, search_of_2020(model.logits, params, prompt, EOS))
