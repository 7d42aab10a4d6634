"""One output of several is given up: its row is free, and the others never notice."""

from __future__ import annotations

import pytest
from engine.test_outputs_rows import several
from engine.twin import Twin, check_answers, check_unused
from support.checks import error_code
from support.engines import Answers, HeldExecutor
from support.faults import Clock

from prefixmux_server.engine.messages import OutputEnd, Submit
from prefixmux_server.engine.params import BeamParams
from prefixmux_server.memory.select import LayoutName


@pytest.fixture(params=["causal", "seq2seq"])
def twin(request: pytest.FixtureRequest) -> Twin:
    found: Twin = request.getfixturevalue(request.param)
    return found


def check_rest(twin: Twin, answers: Answers, request: Submit, *gone: int) -> None:
    """All but these outputs said all they had to, and nobody else is named at the end."""
    wanted = twin.outputs(request)
    finished = answers.finished[request.id]
    left = [index for index in range(request.sampling.n) if index not in gone]
    assert [end.index for end in finished.outputs] == left
    assert answers.outputs(request.id) == [wanted[index] for index in left]
    for index in gone:
        said = answers.spoken.get((request.id, index), [])
        assert said == wanted[index][: len(said)]


@pytest.mark.parametrize("index", [0, 1, 3])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 6])
def test_at_any_time(twin: Twin, layout: LayoutName, index: int, steps: int) -> None:
    """In the queue, in the middle of a prompt, with the first token, later; then it says no
    more. A row less runs from the next step on."""
    parts, answers = twin.engine(layout, tokens=9), Answers()
    gone = several(twin, "gone", "five", n=4, new=6, tokens=20)
    others = [several(twin, "left", n=2), twin.ask("right", "five", new=9)]
    for request in (others[0], gone, others[1]):
        parts.engine.submit(request)
    for _ in range(steps):
        answers.step(parts.engine)
    parts.engine.abort("gone", index)
    parts.engine.check_integrity()
    said, done = len(answers.spoken.get(("gone", index), [])), len(answers.records)
    answers.run(parts.engine)
    assert len(answers.spoken.get(("gone", index), [])) == said
    rows = [row for record in answers.records[done:] for row in record.rows if row.id == "gone"]
    assert all(row.tokens == 3 for row in rows if row.phase == "decode")
    check_rest(twin, answers, gone, index)
    check_answers(twin, answers, others)
    check_unused(parts)


def test_its_row_is_free_for_others(twin: Twin, layout: LayoutName) -> None:
    parts, answers = twin.engine(layout, rows=4), Answers()
    request = several(twin, "n", "five", n=4, new=9)
    parts.engine.submit(request)
    parts.engine.submit(twin.ask("waiting", "five", new=1))
    for _ in range(3):
        answers.step(parts.engine)
    assert not answers.tokens.get("waiting")
    parts.engine.abort("n", 2)
    answers.step(parts.engine)
    answers.step(parts.engine)
    assert "waiting" in answers.finished
    answers.run(parts.engine)
    check_rest(twin, answers, request, 2)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_one_after_the_other_until_none_is_left(
    twin: Twin, layout: LayoutName, order: tuple[int, ...], steps: int
) -> None:
    """Then the request is forgotten, and nothing is said of its end."""
    parts, answers = twin.engine(layout, capacity=512), Answers()
    other = twin.ask("other", "five", new=9)
    parts.engine.submit(several(twin, "gone", "five", new=12))
    parts.engine.submit(other)
    for index in order:
        for _ in range(steps):
            answers.step(parts.engine)
        parts.engine.abort("gone", index)
        parts.engine.check_integrity()
    answers.run(parts.engine)
    assert set(answers.finished) == {"other"}
    check_answers(twin, answers, [other])
    check_unused(parts)
    parts.engine.submit(several(twin, "gone"))


def test_the_last_that_goes_on_leaves_those_that_ended(twin: Twin, layout: LayoutName) -> None:
    """How they ended has not been told before."""
    free = several(twin, "n", "five", n=2, new=9, seed=4)
    stop = twin.outputs(free)[0][1]
    request = several(twin, "n", "five", n=2, new=9, seed=4, stop_token_ids=(stop,))
    wanted = twin.outputs(request)
    assert len(wanted[0]) < len(wanted[1]), "the test would see nothing"
    parts, answers = twin.engine(layout), Answers()
    parts.engine.submit(request)
    for _ in range(len(wanted[0])):
        answers.step(parts.engine)
    parts.engine.abort("n", 0)
    parts.engine.abort("n", 1)
    assert parts.engine.has_work, "the end is still to be told"
    assert answers.step(parts.engine)
    assert answers.finished["n"].outputs == (OutputEnd(0, "stop", stop),)
    assert answers.finished["n"].prefixes == ("five",)
    check_unused(parts)


def test_what_is_not_there_is_ignored(twin: Twin, layout: LayoutName) -> None:
    parts, answers = twin.engine(layout), Answers()
    request = several(twin, "n", n=2)
    search = twin.ask("search", beams=BeamParams(3), new=4)
    for submitted in (request, search):
        parts.engine.submit(submitted)
    for _ in range(2):
        answers.step(parts.engine)
        parts.engine.abort("n", 2)
        parts.engine.abort("search", 1)
        parts.engine.abort("never", 0)
        parts.engine.abort("n", 1)
        parts.engine.abort("n", 1)
    answers.run(parts.engine)
    check_rest(twin, answers, request, 1)
    check_answers(twin, answers, [search])
    parts.engine.abort("n", 0)
    check_unused(parts)


def test_a_search_has_one_output(twin: Twin, layout: LayoutName) -> None:
    parts, answers = twin.engine(layout), Answers()
    parts.engine.submit(twin.ask("search", beams=BeamParams(3), new=4))
    for _ in range(2):
        answers.step(parts.engine)
    parts.engine.abort("search", 0)
    assert answers.run(parts.engine).finished == {}
    check_unused(parts)


def test_while_its_prefix_loads(twin: Twin, layout: LayoutName) -> None:
    """Fewer rows are asked for then: what would not have fitted may fit."""
    held = HeldExecutor()
    parts, answers = twin.engine(layout, rows=3, executor=held), Answers()
    request = several(twin, "n", "five", n=3)
    parts.engine.submit(request)
    parts.engine.step()
    parts.engine.abort("n", 1)
    held.run_all()
    parts.engine.submit(twin.ask("beside", new=9))
    answers.step(parts.engine)
    assert {row.id for record in answers.records for row in record.rows} == {"n", "beside"}
    answers.run(parts.engine)
    check_rest(twin, answers, request, 1)
    check_unused(parts)


def test_a_deadline_after_it(twin: Twin, layout: LayoutName) -> None:
    """Ends what is left of the request, as one."""
    clock, answers = Clock(), Answers()
    parts = twin.engine(layout, clock=clock)
    parts.engine.submit(several(twin, "n", "five", n=3, new=9, deadline=105.0))
    for _ in range(3):
        answers.step(parts.engine)
    parts.engine.abort("n", 0)
    clock.now = 105.0
    answers.run(parts.engine)
    assert error_code(answers, "n") == "deadline_exceeded"
    assert answers.finished["n"].outputs == ()
    check_unused(parts)
