"""Beam searches as rows of a batch: what a search finds does not depend on who is beside it."""

from __future__ import annotations

import pytest
from engine.twin import Twin, check_answers, check_unused
from support.checks import error_code
from support.engines import Answers, answer
from support.faults import Clock, NaNFor, RaisesFor

from prefixmux_server.engine.messages import Submit
from prefixmux_server.engine.params import BeamParams
from prefixmux_server.memory.select import LayoutName

CAUSAL: tuple[tuple[str, ...], ...] = ((), ("five",), ("text", "infix"), ("infix-embedded",))
SEQ2SEQ: tuple[tuple[str, ...], ...] = ((), ("three-site",), ("embedded", "cross"), ("five",))


@pytest.fixture(params=["causal", "seq2seq"])
def twin(request: pytest.FixtureRequest) -> Twin:
    found: Twin = request.getfixturevalue(request.param)
    return found


def search(twin: Twin, name: str, *prefixes: str, beams: int = 3, new: int = 4) -> Submit:
    """All that it finds is asked for; the prompt's last two tokens are behind an infix if any."""
    params = BeamParams(beams, num_return=beams)
    return twin.ask(name, *prefixes, tokens=5, new=new, beams=params)


def crowd(twin: Twin) -> list[Submit]:
    """A search behind each kind of prefix, and plain rows of other lengths between them."""
    chains = SEQ2SEQ if twin.slow.model.seq2seq else CAUSAL
    requests = []
    for number, chain in enumerate(chains):
        requests.append(search(twin, f"b{number}", *chain, beams=2 + number % 3))
        requests.append(twin.ask(f"p{number}", *chain, tokens=2 + 7 * number, new=3 + number))
    return requests


def test_alone(twin: Twin, layout: LayoutName) -> None:
    parts = twin.engine(layout, capacity=512)
    for request in crowd(twin):
        check_answers(twin, answer(parts.engine, [request]), [request])
        check_unused(parts)


@pytest.mark.parametrize(("rows", "tokens"), [(64, 2048), (64, 9), (4, 4), (7, 11)])
def test_together(twin: Twin, layout: LayoutName, rows: int, tokens: int) -> None:
    """A group runs whole or not at all in a step, however little a step may run."""
    parts = twin.engine(layout, rows=rows, tokens=tokens, capacity=2048)
    requests = crowd(twin)
    answers = answer(parts.engine, requests)
    check_answers(twin, answers, requests)
    width = {r.id: 1 if r.sampling.beams is None else r.sampling.beams.num_beams for r in requests}
    for record in answers.records:
        assert sum(width[row.id] for row in record.rows) <= rows
        assert sum(row.tokens for row in record.rows) <= tokens
        for row in record.rows:
            assert row.phase == "prefill" or row.tokens in (width[row.id], 1)
    check_unused(parts)


def test_nothing_is_said_before_the_end(twin: Twin, layout: LayoutName) -> None:
    parts, answers = twin.engine(layout), Answers()
    request = search(twin, "b", "five")
    parts.engine.submit(request)
    while parts.engine.has_work:
        answers.step(parts.engine)
    assert "b" not in answers.tokens
    finished = answers.finished["b"]
    assert finished.reason == finished.beams[0].reason == "length"
    assert (finished.prefixes, finished.prefix_tokens) == (("five",), (5,))
    assert finished.timing.ttft_s is not None


def test_an_end_token_ends_sequences(twin: Twin, layout: LayoutName) -> None:
    """Those that end early count in full where the length does not; others go on beside them."""
    plain = search(twin, "b", "five", new=5)
    found = answer(twin.engine(layout).engine, [plain]).finished["b"].beams
    stops = tuple({beam.token_ids[1] for beam in found})
    params = BeamParams(3, length_penalty=0.0, num_return=3)
    ends = twin.ask("b", "five", tokens=5, new=5, stop_token_ids=stops, beams=params)
    answers = answer(twin.engine(layout).engine, [ends])
    check_answers(twin, answers, [ends])
    assert "stop" in {beam.reason for beam in answers.finished["b"].beams}


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("how", ["abort", "deadline"])
def test_leaves_at_any_time(twin: Twin, layout: LayoutName, steps: int, how: str) -> None:
    """With all its rows; other searches go on."""
    clock, answers = Clock(), Answers()
    parts = twin.engine(layout, capacity=1024, tokens=16, clock=clock)
    stay = [search(twin, "left", "five", beams=2), twin.ask("right", "five", new=9)]
    gone = twin.ask("gone", tokens=5, new=9, deadline=105.0, beams=BeamParams(5))
    for request in (stay[0], gone, stay[1]):
        parts.engine.submit(request)
    for _ in range(steps):
        answers.step(parts.engine)
    if how == "abort":
        parts.engine.abort("gone")
        parts.engine.check_integrity()
    clock.now = 105.0
    answers.run(parts.engine)
    assert how == "abort" or error_code(answers, "gone") == "deadline_exceeded"
    check_answers(twin, answers, stay)
    check_unused(parts)


@pytest.mark.parametrize("step", [0, 1, 2])
def test_logits_that_are_not_finite_end_the_search_alone(
    twin: Twin, layout: LayoutName, step: int
) -> None:
    """In one of its beams: the others cannot be told to be right."""
    parts = twin.engine(layout, capacity=1024, failpoints=NaNFor("ill", step=step))
    others = [search(twin, "left", beams=2), twin.ask("right")]
    answers = answer(parts.engine, [others[0], search(twin, "ill", "five"), others[1]])
    assert error_code(answers, "ill") == "non_finite_output"
    assert answers.finished["ill"].beams == ()
    check_answers(twin, answers, others)
    check_unused(parts)


@pytest.mark.parametrize("healthy", [0, 1, 3])
@pytest.mark.parametrize("times", [1, None])
def test_a_pass_that_raises(
    twin: Twin, layout: LayoutName, healthy: int, times: int | None
) -> None:
    faults = RaisesFor({"ill"}, healthy=healthy, times=times)
    parts = twin.engine(layout, capacity=1024, failpoints=faults)
    others = [search(twin, "left", beams=2), twin.ask("right", "five")]
    ill = search(twin, "ill", "five")
    answers = answer(parts.engine, [others[0], ill, others[1]])
    if times is None:
        assert error_code(answers, "ill") == "internal_error"
    else:
        check_answers(twin, answers, [ill])
    check_answers(twin, answers, others)
    check_unused(parts)


def test_a_choice_that_raises_ends_its_search_alone(causal: Twin, layout: LayoutName) -> None:
    """No client can send such a penalty; whatever raises there must end one request only."""
    parts = causal.engine(layout)
    params = BeamParams(2, length_penalty=1e6)
    ill = causal.ask("ill", "five", new=3, beams=params)
    others = [search(causal, "left"), causal.ask("right")]
    answers = answer(parts.engine, [others[0], ill, others[1]])
    assert error_code(answers, "ill") == "internal_error"
    check_answers(causal, answers, others)
    check_unused(parts)


class TestRoom:
    def test_wider_than_a_batch_is_refused(self, twin: Twin, layout: LayoutName) -> None:
        """In rows or in tokens; the widest that fits is served."""
        for unit in ("rows", "tokens"):
            parts = twin.engine(layout, **{unit: 3})
            fits, more = search(twin, "fits", beams=3), search(twin, "more", beams=4)
            answers = answer(parts.engine, [more, fits])
            assert error_code(answers, "more") == "invalid_request"
            error = answers.finished["more"].error
            assert error is not None and f"--max-batch-{unit} " in f"{error.message} "
            check_answers(twin, answers, [fits])
            check_unused(parts)

    def test_waits_for_rows_in_its_turn(self, causal: Twin, layout: LayoutName) -> None:
        """Whoever is behind it does not overtake it, however little he needs."""
        parts = causal.engine(layout, rows=4)
        requests = [
            causal.ask("first", new=5),
            search(causal, "wide", beams=4),
            causal.ask("behind", new=2),
        ]
        answers = answer(parts.engine, requests)
        check_answers(causal, answers, requests)
        assert list(answers.finished) == ["first", "wide", "behind"]

    def test_too_long_for_the_memory_says_what_to_do(
        self, causal: Twin, layout: LayoutName
    ) -> None:
        parts = causal.engine(layout, capacity=128)
        requests = [search(causal, "wide", new=60, beams=3), causal.ask("long", new=130)]
        answers = answer(parts.engine, requests)
        for id, fewer in (("wide", True), ("long", False)):
            assert error_code(answers, id) == "prompt_too_long"
            error = answers.finished[id].error
            assert error is not None
            assert ("ask for fewer beams" in error.message) == fewer
            assert error.message.endswith("larger --kv-tokens")

    def test_memory_for_one_search_at_a_time(self, causal: Twin, layout: LayoutName) -> None:
        """Rows take whole pieces of memory, or share their beginning."""
        capacity = {"rows": 3 * 64, "slots": 5 + 5 + 3 * 3}[layout]
        parts = causal.engine(layout, capacity=capacity)
        requests = [search(causal, f"b{n}", "five") for n in range(3)]
        answers = answer(parts.engine, requests)
        check_answers(causal, answers, requests)
        assert all(len(record.rows) == 1 for record in answers.records)
        smaller = causal.engine(layout, capacity=capacity - 1)
        refused = answer(smaller.engine, [requests[0], causal.ask("fine", new=2)])
        assert error_code(refused, "b0") == "prompt_too_long"
        check_answers(causal, refused, [causal.ask("fine", new=2)])
