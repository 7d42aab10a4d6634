"""A deadline ends a request wherever it is, and gives back all that it held."""

from __future__ import annotations

import pytest
from support.checks import check_empty, error_code
from support.engines import Answers, EngineParts, HeldExecutor
from support.faults import Clock
from support.tiny import Tiny, ask

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
