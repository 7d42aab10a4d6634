"""A deadline ends a request wherever it is, and gives back all that it held."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.checks import check_empty, error_code
from support.engines import Answers, EngineParts, HeldExecutor
from support.faults import Clock
from support.tiny import Tiny, ask

from prefixmux_server.engine.deadlines import Deadlines
from prefixmux_server.engine.request import Request
from prefixmux_server.memory.select import LayoutName


class TestDeadlines:
    def engine(self, tiny: Tiny, layout: LayoutName, clock: Clock) -> EngineParts:
        source = tiny.source(a=10)
        return tiny.engine(layout, source=source, rows=1, capacity=128, clock=clock)

    def test_in_the_queue(self, tiny: Tiny, layout: LayoutName) -> None:
        clock, answers = Clock(), Answers()
        parts = self.engine(tiny, layout, clock)
        running = ask("running", "a", new=10)
        parts.engine.submit(running)
        parts.engine.submit(ask("waiting", "a", deadline=105.0))
        answers.step(parts.engine)
        clock.now = 104.999
        answers.step(parts.engine)
        assert not answers.finished
        clock.now = 105.0
        answers.step(parts.engine)
        assert error_code(answers, "waiting") == "deadline_exceeded"
        assert answers.finished["waiting"].timing.queue_s == pytest.approx(5.0)
        answers.run(parts.engine)
        assert answers.tokens["running"] == tiny.expected(parts.source, running)
        check_empty(tiny, parts)

    def test_while_it_runs_frees_its_row(self, tiny: Tiny, layout: LayoutName) -> None:
        clock, answers = Clock(), Answers()
        parts = self.engine(tiny, layout, clock)
        late, next_one = ask("late", "a", new=20, deadline=105.0), ask("next", "a", new=4)
        parts.engine.submit(late)
        parts.engine.submit(next_one)
        for _ in range(3):
            answers.step(parts.engine)
        clock.now = 106.0
        answers.step(parts.engine)
        assert error_code(answers, "late") == "deadline_exceeded"
        assert answers.finished["late"].prefixes == ("a",)
        assert answers.tokens["late"] == tiny.expected(parts.source, late)[:3]
        assert [row.id for row in answers.records[-1].rows] == ["next"]
        answers.run(parts.engine)
        assert answers.tokens["next"] == tiny.expected(parts.source, next_one)
        check_empty(tiny, parts)

    def test_in_the_middle_of_a_prompt(self, tiny: Tiny, layout: LayoutName) -> None:
        clock, answers = Clock(), Answers()
        parts = tiny.engine(layout, tokens=4, capacity=128, clock=clock)
        parts.engine.submit(ask("late", tokens=50, deadline=105.0))
        answers.step(parts.engine)
        clock.now = 106.0
        answers.step(parts.engine)
        assert error_code(answers, "late") == "deadline_exceeded"
        assert answers.finished["late"].timing.ttft_s is None
        check_empty(tiny, parts)

    def test_while_its_prefix_loads(self, tiny: Tiny, layout: LayoutName) -> None:
        clock, answers, held = Clock(), Answers(), HeldExecutor()
        source = tiny.source(a=10)
        parts = tiny.engine(layout, source=source, capacity=128, executor=held, clock=clock)
        parts.engine.submit(ask("late", "a", deadline=105.0))
        assert not answers.step(parts.engine)
        clock.now = 200.0
        answers.step(parts.engine)
        assert error_code(answers, "late") == "deadline_exceeded"
        held.run_all()
        answers.step(parts.engine)
        check_empty(tiny, parts)

    def test_already_past(self, tiny: Tiny, layout: LayoutName) -> None:
        answers, parts = Answers(), self.engine(tiny, layout, Clock())
        parts.engine.submit(ask("late", deadline=1.0))
        answers.run(parts.engine)
        assert error_code(answers, "late") == "deadline_exceeded"
        assert not answers.records

    def test_none_never_ends(self, tiny: Tiny, layout: LayoutName) -> None:
        clock, answers = Clock(), Answers()
        parts = self.engine(tiny, layout, clock)
        parts.engine.submit(ask("calm"))
        answers.step(parts.engine)
        clock.now = 1e9
        answers.run(parts.engine)
        assert answers.finished["calm"].reason == "length"

    def test_each_in_its_own_time(self, tiny: Tiny, layout: LayoutName) -> None:
        """In another order than they came, beside one that was aborted and one that comes after
        others have ended."""
        clock, answers = Clock(), Answers()
        parts = tiny.engine(layout, rows=1, capacity=128, clock=clock)
        parts.engine.submit(ask("running", new=20))
        for name, deadline in (("third", 130.0), ("first", 110.0), ("second", 120.0)):
            parts.engine.submit(ask(name, deadline=deadline))
        parts.engine.submit(ask("gone", deadline=105.0))
        parts.engine.abort("gone")
        ended = {}
        for clock.now in (105.0, 110.0, 119.0, 120.0, 125.0, 130.0):
            answers.step(parts.engine)
            ended[clock.now] = sorted(answers.finished)
            if clock.now == 119.0:
                parts.engine.submit(ask("late", deadline=125.0))
        assert ended == {
            105.0: [],
            110.0: ["first"],
            119.0: ["first"],
            120.0: ["first", "second"],
            125.0: ["first", "late", "second"],
            130.0: ["first", "late", "second", "third"],
        }
        assert "deadline_exceeded" == error_code(answers, "late") == error_code(answers, "third")


class Counted:
    """Open requests that know how often somebody has looked through them."""

    def __init__(self, *requests: Request) -> None:
        self.requests = list(requests)
        self.looks = 0

    def __iter__(self) -> Iterator[Request]:
        self.looks += 1
        return iter(self.requests)


class TestCost:
    """A step costs no look at all requests while no deadline has come."""

    def test_it_looks_when_a_deadline_has_come(self) -> None:
        first, second, calm = (
            Request(ask(name, deadline=deadline), 0.0, encoded=True)
            for name, deadline in (("first", 10.0), ("second", 20.0), ("calm", None))
        )
        deadlines, open_ones = Deadlines(), Counted(second, calm, first)
        for request in open_ones.requests:
            deadlines.add(request)
        assert [deadlines.passed(now, open_ones) for now in (0.0, 5.0, 9.999)] == [[], [], []]
        assert open_ones.looks == 0
        assert deadlines.passed(10.0, open_ones) == [first]
        open_ones.requests.remove(first)
        assert [deadlines.passed(now, open_ones) for now in (10.0, 19.999)] == [[], []]
        assert open_ones.looks == 1
        assert deadlines.passed(20.0, open_ones) == [second]
        open_ones.requests.remove(second)
        assert deadlines.passed(1e9, open_ones) == []
        assert open_ones.looks == 2
