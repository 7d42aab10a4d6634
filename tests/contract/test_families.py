"""What every family keeps: whatever else is in the batch, a request is answered as if alone.

The truth is the slow reference's answer to one request; all memory that no live row owns is NaN.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from contract.rounds import Round, check
from contract.ward import BEAMS, Ward, random_questions
from support.engines import Answers, HeldExecutor, answer
from support.faults import RaisesFor
from support.models import load_folder
from support.slow import Asked
from support.sources import Counted, Spoiled
from support.stored import LogitsRecorder, stored_engine
from support.tiny import LAYOUTS

from prefixmux_server.engine.engine import Engine
from prefixmux_server.memory.select import LayoutName
from prefixmux_server.memory.source import PrefixSource


def test_every_mixture_of_prefixes_matters(ward: Ward) -> None:
    """Else nothing below would mean anything."""
    moved: dict[tuple[str, ...], float] = {}
    for question in ward.questions:
        asked = question.asked
        bare = ward.slow.greedy(
            Asked(asked.input_ids, 1, (), asked.decoder_ids)
            if ward.slow.model.seq2seq
            else Asked(question.prompt, 1)
        )
        change = float((bare.logits[0] - question.said.logits[0]).abs().max())
        moved[question.mixture] = max(change, moved.get(question.mixture, 0.0))
    assert {mixture for mixture, change in moved.items() if change < 1e-2} == {()}


def test_the_sites_are_those_expected(ward: Ward) -> None:
    assert set(ward.loaded.specs) == set(ward.family.sites)


def test_alone(ward: Ward, layout: LayoutName) -> None:
    """Every mixture; the other of its two prompts on the other layout."""
    recorder = LogitsRecorder()
    engine = make(ward, layout, failpoints=recorder)
    for question in ward.questions[layout == "slots" :: 2]:
        answers = answer(engine, [ward.submit(question)])
        check(question, answers, recorder, question.name)


def test_all_together(ward: Ward, layout: LayoutName) -> None:
    """Bare, KV, embedding, text, infix and composed rows, each three times, in one batch."""
    recorder = LogitsRecorder()
    engine = make(ward, layout, failpoints=recorder, rows=128, capacity=8192)
    answers = Answers()
    for question in ward.questions:
        for copy in "abc":
            engine.submit(ward.submit(question, copy))
    answers.run(engine)
    assert max(len(record.rows) for record in answers.records) == 3 * len(ward.questions)
    for question in ward.questions:
        for copy in "abc":
            check(question, answers, recorder, question.name + copy)


def test_beam_searches_beside_greedy_rows(ward: Ward, layout: LayoutName) -> None:
    recorder = LogitsRecorder()
    engine = make(ward, layout, failpoints=recorder, rows=64, tokens=40)
    for question, _ in ward.searches:
        options = {"max_new_tokens": 5, "ignore_eos": False, "beams": BEAMS}
        engine.submit(ward.submit(question, "?", **options))
        engine.submit(ward.submit(question))
    answers = Answers().run(engine)
    for question, outputs in ward.searches:
        check(question, answers, recorder, question.name)
        beams = answers.finished[f"{question.name}?"].beams
        assert [beam.token_ids for beam in beams] == [beam.token_ids for beam in outputs]
        found, truth = ([beam.score for beam in side] for side in (beams, outputs))
        assert found == pytest.approx(truth, abs=1e-3), question.name


@pytest.mark.parametrize(("rows", "tokens"), [(3, 5), (10, 40)])
def test_staggered_joins_and_leaves(ward: Ward, layout: LayoutName, rows: int, tokens: int) -> None:
    """Prompts are cut into chunks where the budget is small; prefixes load when they will."""
    recorder, loads = LogitsRecorder(), HeldExecutor()
    engine = make(ward, layout, failpoints=recorder, executor=loads, rows=rows, tokens=tokens)
    rng = random.Random(f"{ward.loaded.architecture} {layout} {rows}")
    played = Round(ward, ward.questions, engine, recorder, loads, rng, requests=25).run()
    played.check()
    assert len(played.aborted) < 15


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_random_mixtures(ward: Ward, layout: LayoutName, seed: int) -> None:
    rng = random.Random(seed)
    questions = random_questions(ward, rng, 30)
    for rows, tokens in ((2, 3), (7, 19), (40, 2048)):
        recorder, loads = LogitsRecorder(), HeldExecutor()
        engine = make(ward, layout, failpoints=recorder, executor=loads, rows=rows, tokens=tokens)
        Round(ward, questions, engine, recorder, loads, rng, requests=60).run().check()


def test_prefixes_come_and_go(ward: Ward, layout: LayoutName) -> None:
    """Room for hardly more than one request's prefixes: each is evicted, read again, and lands
    where another was, the other version of the same length among them."""
    recorder, counted = LogitsRecorder(), list[Counted]()

    def count(source: PrefixSource) -> PrefixSource:
        counted.append(Counted(source))
        return counted[0]

    largest = max(sum(map(ward.bytes_of, question.mixture)) for question in ward.questions)
    engine = make(
        ward, layout, failpoints=recorder, wrap=count, host_bytes=largest, device_bytes=largest
    )
    rng, questions = random.Random(0), ward.questions[::2]
    for turn in range(2):
        for question in rng.sample(questions, len(questions)):
            engine.submit(ward.submit(question, f"#{turn}"))
    answers = Answers().run(engine)
    for question in questions:
        for turn in range(2):
            check(question, answers, recorder, f"{question.name}#{turn}")
    assert counted[0].reloads > len(ward.digests)


def test_a_prefix_that_is_not_finite_fails_alone(ward: Ward, layout: LayoutName) -> None:
    """Whatever its method; the rows beside it hear nothing of it, nor those that come later."""
    spoiled = {"five", "embedded", "infix", "infix-embedded", "three-site", "cross", "encoder"}
    digests = [digest for name, digest in ward.digests.items() if name in spoiled]
    recorder = LogitsRecorder()
    engine = make(ward, layout, failpoints=recorder, wrap=lambda s: Spoiled(s, digests))
    answers = answer(engine, [ward.submit(question) for question in ward.questions])
    failed = [q for q in ward.questions if spoiled & set(q.mixture)]
    assert {name for question in failed for name in question.mixture} >= spoiled & set(ward.digests)
    for question in ward.questions:
        error = answers.finished[question.name].error
        if question in failed:
            assert error is not None, question.name
            assert error.code in ("non_finite_output", "prefix_unavailable"), question.name
        else:
            check(question, answers, recorder, question.name)
    later = [question for question in ward.questions if question not in failed]
    answers = answer(engine, [ward.submit(question, "later") for question in later])
    for question in later:
        check(question, answers, recorder, f"{question.name}later")


def test_a_row_that_breaks_its_pass_fails_alone(ward: Ward, layout: LayoutName) -> None:
    """From its second pass on; the others of the batch are run again without it."""
    culprits = [question.name for question in ward.questions[::5]]
    engine = make(ward, layout, failpoints=RaisesFor(culprits, healthy=1))
    answers = answer(engine, [ward.submit(question) for question in ward.questions])
    for question in ward.questions:
        error = answers.finished[question.name].error
        if question.name in culprits:
            assert error is not None and error.code == "internal_error"
        else:
            assert tuple(answers.tokens[question.name]) == question.said.tokens, question.name


def test_in_bfloat16_only_rounding_differs(ward: Ward) -> None:
    """No token is promised there, but every method runs, and means the same."""
    half = replace(ward, loaded=load_folder(ward.model, dtype="bfloat16"))
    for layout in LAYOUTS:
        recorder = LogitsRecorder()
        engine = make(half, layout, failpoints=recorder)
        requests = [half.submit(question, max_new_tokens=1) for question in ward.questions]
        answers = answer(engine, requests)
        for question in ward.questions:
            assert answers.finished[question.name].error is None, question.name
            pair = torch.stack([recorder.of(question.name)[0].float(), question.said.logits[0]])
            assert float(torch.corrcoef(pair)[0, 1]) > 0.995, question.name


def make(ward: Ward, layout: LayoutName, **options: Any) -> Engine:
    return stored_engine(ward.loaded, layout, ward.root, **{"capacity": 4096, **options})
