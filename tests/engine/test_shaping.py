"""Penalties, bans and forced tokens are those of transformers' own processors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)

from prefixmux_server.engine.params import SamplingParams
from prefixmux_server.engine.sampling.sampler import Sampler, Silence
from prefixmux_server.engine.sampling.shaping import SamplingRow, banned_tokens, forced_token, shape

EOS = frozenset({2})
WORDS = 9

tokens = st.lists(st.integers(0, WORDS - 1), max_size=12)
rows = st.builds(
    SamplingRow,
    st.builds(
        SamplingParams,
        max_new_tokens=st.integers(1, 13),
        min_new_tokens=st.integers(0, 6),
        repetition_penalty=st.sampled_from([1.0, 0.5, 1.7]),
        stop_token_ids=st.sampled_from([(), (4, 7)]),
        no_repeat_ngram_size=st.integers(0, 4),
        forced_bos_token_id=st.sampled_from([None, 1]),
        forced_eos_token_id=st.sampled_from([None, 2]),
    ),
    tokens.filter(bool),
    tokens,
)
scores_of = st.lists(st.floats(-9, 9, width=32), min_size=WORDS, max_size=WORDS, unique=True)


def processed(row: SamplingRow, scores: torch.Tensor) -> torch.Tensor:
    """By transformers, in the order in which `generate` calls them."""
    params, prompt = row.params, len(row.prompt)
    ends = sorted(EOS.union(params.stop_token_ids))
    steps: list[Any] = [
        RepetitionPenaltyLogitsProcessor(params.repetition_penalty),
        MinNewTokensLengthLogitsProcessor(prompt, params.min_new_tokens, ends),
    ]
    if params.no_repeat_ngram_size:
        steps.insert(1, NoRepeatNGramLogitsProcessor(params.no_repeat_ngram_size))
    if params.forced_bos_token_id is not None:
        steps.append(ForcedBOSTokenLogitsProcessor(params.forced_bos_token_id))
    if params.forced_eos_token_id is not None:
        longest = prompt + params.max_new_tokens
        steps.append(ForcedEOSTokenLogitsProcessor(longest, params.forced_eos_token_id))
    ids = torch.tensor([[*row.prompt, *row.output]])
    return torch.as_tensor(LogitsProcessorList(steps)(ids, scores[None]))[0]


@settings(max_examples=500, deadline=None)
@given(row=rows, scores=scores_of)
def test_equal_to_transformers(row: SamplingRow, scores: list[float]) -> None:
    expected = processed(row, torch.tensor(scores))
    forced = forced_token(row)
    if forced is not None:
        assert expected.isfinite().nonzero().tolist() == [[forced]]
    else:
        found = torch.tensor([scores])
        shape(found, [row], EOS)
        assert torch.equal(found[0], expected)
    (token,) = Sampler(EOS).sample(torch.tensor([scores]), [row])
    assert token == (int(expected.argmax()) if expected.amax().isfinite() else Silence.BANNED)


@settings(max_examples=100, deadline=None)
@given(group=st.lists(st.tuples(rows, scores_of), min_size=1, max_size=5))
def test_rows_do_not_touch_each_other(group: list[tuple[SamplingRow, list[float]]]) -> None:
    together = torch.tensor([scores for _, scores in group])
    shape(together, [row for row, _ in group], EOS)
    for result, (row, scores) in zip(together, group, strict=True):
        alone = torch.tensor([scores])
        shape(alone, [row], EOS)
        assert torch.equal(result, alone[0])


def row_of(prompt: tuple[int, ...], output: tuple[int, ...], **params: Any) -> SamplingRow:
    return SamplingRow(SamplingParams(5, **params), prompt, output)


@pytest.mark.parametrize(
    ("prompt", "output", "size", "banned"),
    [
        ((5, 6, 5), (), 2, {6}),
        ((5, 6), (5,), 2, {6}),
        ((5, 6, 7, 5), (6,), 3, {7}),
        ((5, 6, 7, 6), (6,), 3, set()),
        ((5, 5), (5,), 2, {5}),
        ((5, 6), (), 1, {5, 6}),
        ((5,), (), 2, set()),
        ((5, 6), (), 9, set()),
        ((5, 6, 5, 7, 5), (), 2, {6, 7}),
    ],
)
def test_no_n_gram_comes_twice(
    prompt: tuple[int, ...], output: tuple[int, ...], size: int, banned: set[int]
) -> None:
    assert banned_tokens(row_of(prompt, output, no_repeat_ngram_size=size), EOS) == banned


def test_the_last_token_that_is_allowed_is_forced_before_the_first() -> None:
    forced: dict[str, Any] = {"forced_bos_token_id": 6, "forced_eos_token_id": 2}
    assert forced_token(row_of((3,), (), **forced)) == 6
    assert forced_token(row_of((3, 3), (), **forced)) is None
    assert forced_token(row_of((3,), (6, 1, 1), **forced)) is None
    assert forced_token(row_of((3,), (6, 1, 1, 1), **forced)) == 2
    assert forced_token(SamplingRow(SamplingParams(1, **forced), (3,), ())) == 2


def test_a_forced_token_hides_no_broken_logits() -> None:
    logits = torch.tensor([[1.0, float("nan"), 0.0]])
    assert Sampler(EOS).sample(logits, [row_of((1,), (), forced_bos_token_id=0)]) == [
        Silence.BROKEN
    ]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("penalty", [1.0, 1.5])
def test_where_everything_is_banned_nothing_is_said(temperature: float, penalty: float) -> None:
    """Bans of the request and of the model together; what is forced comes all the same."""
    shaped: dict[str, Any] = {"temperature": temperature, "repetition_penalty": penalty}
    row = row_of((0, 2), (), no_repeat_ngram_size=1, **shaped)
    forced = row_of((0,), (), no_repeat_ngram_size=1, forced_bos_token_id=0, **shaped)
    logits = torch.tensor([[0.0, float("-inf"), 2.0]])
    assert Sampler(EOS).sample(logits, [row]) == [Silence.BANNED]
    assert Sampler(EOS).sample(logits, [forced]) == [0]


def test_tokens_that_the_model_cannot_say() -> None:
    """A table of embeddings may have more rows than the model has outputs."""
    row = row_of((1, 50), (51,), no_repeat_ngram_size=1, repetition_penalty=1.2)
    scores = torch.tensor([[2.0, 1.0, 0.5]])
    shape(scores, [row], EOS)
    assert scores.tolist() == [[2.0, float("-inf"), 0.5]]
