"""Beam search over the slow reference's logits: what PEFT and the paper's code answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.beam_models import Logits, Tokens, search
from support.golden import Golden, is_beam
from support.original import CHECKPOINTS, Original
from support.slow import Asked, Slow

from prefixmux_server.engine.params import BeamParams, EarlyStopping, SamplingParams

pytestmark = pytest.mark.shared
SEARCHED = ("gpt2", "llama", "qwen2", "qwen3", "opt", "bart", "mbart", "marian", "t5")
EARLY: dict[object, EarlyStopping] = {True: "yes", False: "no", "never": "never"}


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    return Golden(shared / "golden")


@pytest.fixture(scope="module")
def original(shared: Path) -> Original:
    return Original(shared / "golden_original")


def prompt_of(slow: Slow, asked: Asked) -> Tokens:
    """The decoder's real tokens before the first new one."""
    return asked.decoder_ids if slow.model.seq2seq else asked.input_ids + asked.decoder_ids


def logits_of(slow: Slow, asked: Asked, begun: int) -> Logits:
    """Every sequence anew, as a request for one token; the first `begun` tokens are its prompt."""
    behind = slow.model.seq2seq or asked.decoder_ids

    def one(output: Tokens) -> torch.Tensor:
        if behind:
            longer = replace(asked, decoder_ids=asked.decoder_ids + output, max_new_tokens=1)
        else:
            longer = replace(asked, input_ids=asked.input_ids + output, max_new_tokens=1)
        return slow.greedy(longer).logits[0]

    def many(sequences: Sequence[Tokens]) -> torch.Tensor:
        return torch.stack([one(tokens[begun:]) for tokens in sequences])

    return many


@pytest.mark.parametrize("name", SEARCHED)
def test_every_beam_case_of_peft(golden: Golden, name: str) -> None:
    cases = [case for case in golden.cases(name) if is_beam(case)]
    assert cases
    slow = Slow(golden.model(name))
    for case in cases:
        asked, told = golden.asked(case), case["generation"]
        params = SamplingParams(
            max_new_tokens=asked.max_new_tokens,
            no_repeat_ngram_size=told.get("no_repeat_ngram_size", 0),
            beams=BeamParams(
                num_beams=told["num_beams"],
                length_penalty=told["length_penalty"],
                early_stopping=EARLY[told["early_stopping"]],
                num_return=told["num_return_sequences"],
            ),
        )
        prompt = prompt_of(slow, asked)
        logits = logits_of(slow, asked, len(prompt))
        found = search(logits, params, prompt, frozenset(asked.eos))
        assert [list(output.token_ids) for output in found] == case["sequences"], case["id"]
        scores = [output.score for output in found]
        assert scores == pytest.approx(case["sequence_scores"], abs=1e-4), case["id"]
        assert found[0].reason == case["finish_reason"], case["id"]


def test_all_beam_cases_are_covered(golden: Golden, original: Original) -> None:
    assert sum(is_beam(case) for name in SEARCHED for case in golden.cases(name)) == 20
    names = [name for group in CHECKPOINTS.values() for name in group]
    assert sum(len(original.cases(name, beams=True)) for name in names) == 14


@pytest.mark.parametrize("checkpoint", [name for names in CHECKPOINTS.values() for name in names])
def test_every_beam_case_of_the_papers_code(original: Original, checkpoint: str) -> None:
    model = "bart" if checkpoint in CHECKPOINTS["bart"] else "gpt2"
    slow = Slow(original.model(model))
    for label, case in original.cases(checkpoint, beams=True).items():
        asked, told = original.asked(checkpoint, case), case["settings"]
        # To the paper's code x before an infix was no part of the sequence.
        prompt = asked.decoder_ids or asked.input_ids
        beams = BeamParams(
            num_beams=told["beams"],
            length_penalty=told["length_penalty"],
            early_stopping=EARLY[told["early_stopping"]],
            length_includes_prompt=True,
        )
        params = SamplingParams(
            max_new_tokens=asked.max_new_tokens,
            min_new_tokens=max(0, told["min_length"] - len(prompt)),
            no_repeat_ngram_size=told["no_repeat"],
            forced_eos_token_id=asked.eos[0] if told.get("force_last") else None,
            beams=beams,
        )
        logits = logits_of(slow, asked, len(prompt))
        (best,) = search(logits, params, prompt, frozenset(asked.eos))
        assert [*prompt, *best.token_ids] == case["output"], (checkpoint, label)
        assert best.score == pytest.approx(case["score"], abs=1e-4), (checkpoint, label)
        today = replace(params, beams=replace(beams, length_includes_prompt=False))
        (other,) = search(logits, today, prompt, frozenset(asked.eos))
        same = other.token_ids == best.token_ids
        assert same == case["same_if_normalised_by_generated_length"], (checkpoint, label)
