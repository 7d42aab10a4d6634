"""How a beam search ends, and what it makes of logits that leave it little choice."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from support.beam_models import Logits, Tokens, search

from prefixmux_server.engine.params import BeamParams, EarlyStopping, SamplingParams
from prefixmux_server.engine.sampling.beams import BeamSearch, BeamStep, NonFiniteLogits

EOS = frozenset({2})
WORDS = 23


def fixed(*rows: Sequence[float]) -> Logits:
    """The same logits for every beam; row n for the n-th new token, the last one ever after."""

    def logits_of(sequences: Sequence[Tokens]) -> torch.Tensor:
        row = rows[min(len(sequences[0]) - 1, len(rows) - 1)]
        return torch.tensor([row] * len(sequences))

    return logits_of


def looked_up(table: torch.Tensor) -> Logits:
    """Row n for what follows token n."""
    return lambda sequences: table[[tokens[-1] for tokens in sequences]]


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


def test_the_two_rules_differ() -> None:
    """A short answer is dear where the prompt counts for nothing, and cheap where it does."""
    table = torch.full((WORDS, WORDS), -9.0)
    table[4, [2, 6]] = torch.tensor([0.0, 0.4])
    table[6, [2, 6]] = torch.tensor([0.0, 0.4])

    def best(*, includes: bool) -> Tokens:
        beams = BeamParams(num_beams=4, length_includes_prompt=includes)
        params = SamplingParams(max_new_tokens=9, beams=beams)
        return search(looked_up(table), params, (3,) * 30 + (4,), EOS)[0].token_ids

    assert best(includes=True) == (2,)
    assert best(includes=False) == (6,) * 9


def test_only_beams_that_still_run_give_hope() -> None:
    """The best candidate of the second step ends; the best that goes on cannot beat (2,) yet."""
    table = torch.full((WORDS, WORDS), -9.0)
    table[3, [4, 2]] = torch.tensor([-0.15, -2.0])
    table[4] = -14.0
    table[4, [2, 6]] = torch.tensor([0.0, -9.0])
    table[6, 2] = 9.0

    def answers(early: EarlyStopping) -> list[Tokens]:
        beams = BeamParams(2, length_penalty=2.0, early_stopping=early, num_return=2)
        params = SamplingParams(max_new_tokens=3, beams=beams)
        return [output.token_ids for output in search(looked_up(table), params, (3,), EOS)]

    assert answers("no") == [(4, 2), (2,)]
    assert answers("never") == [(4, 2), (4, 6, 2)]
