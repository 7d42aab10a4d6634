"""Encoder passes as part of a step: whole, once, within a budget of their own."""

from __future__ import annotations

import pytest
from engine.twin import Twin, check_answers, check_unused
from support.checks import error_code
from support.engines import Answers, answer
from support.faults import Clock, RaisesFor

from prefixmux_server.engine.messages import Submit
from prefixmux_server.memory.select import LayoutName

KINDS: tuple[tuple[str, ...], ...] = (
    (),
    ("five",),
    ("three-site",),
    ("embedded", "cross"),
    ("text", "encoder"),
)


def crowd(twin: Twin, count: int) -> list[Submit]:
    """Neighbours of all kinds, with long and short inputs."""
    return [
        twin.ask(f"n{n}", *KINDS[n % 5], tokens=1 + 5 * n, more=1 + n % 3, new=4 + n % 3)
        for n in range(count)
    ]


def encoded(answers: Answers) -> list[dict[str, int]]:
    """By step, the encoder's tokens of those who have them."""
    steps = [{r.id: r.encoder_tokens for r in record.rows} for record in answers.records]
    return [{name: count for name, count in step.items() if count} for step in steps]


class TestBudget:
    def test_several_in_one_step_as_far_as_it_goes(self, seq2seq: Twin, layout: LayoutName) -> None:
        requests = [seq2seq.ask(f"r{n}", tokens=count) for n, count in enumerate((8, 9, 3, 20, 1))]
        answers = answer(seq2seq.engine(layout, tokens=20).engine, requests)
        check_answers(seq2seq, answers, requests)
        assert encoded(answers)[:3] == [{"r0": 8, "r1": 9, "r2": 3}, {"r3": 20}, {"r4": 1}]
        assert not any(encoded(answers)[3:])

    def test_virtual_tokens_of_the_encoder_count(self, seq2seq: Twin, layout: LayoutName) -> None:
        requests = [
            seq2seq.ask("virtual", "embedded", "text", tokens=4),
            seq2seq.ask("bare", tokens=4),
        ]
        answers = answer(seq2seq.engine(layout, tokens=20).engine, requests)
        check_answers(seq2seq, answers, requests)
        assert encoded(answers)[:2] == [{"virtual": 17}, {"bare": 4}]

    def test_one_larger_than_all_of_it_runs_alone(self, seq2seq: Twin, layout: LayoutName) -> None:
        """It is whole or not at all; who comes before it and behind it has another step."""
        counts = (3, 50, 2, 40)
        requests = [seq2seq.ask(f"r{n}", tokens=count) for n, count in enumerate(counts)]
        answers = answer(seq2seq.engine(layout, tokens=10).engine, requests)
        check_answers(seq2seq, answers, requests)
        steps = [step for step in encoded(answers) if step]
        assert {name: count for step in steps for name, count in step.items()} == {
            "r0": 3,
            "r1": 50,
            "r2": 2,
            "r3": 40,
        }
        assert all(len(step) == 1 for step in steps if max(step.values()) > 10)

    def test_who_decodes_goes_on_meanwhile(self, seq2seq: Twin, layout: LayoutName) -> None:
        parts, answers = seq2seq.engine(layout, tokens=12), Answers()
        first = [seq2seq.ask(f"old{n}", tokens=3, new=12) for n in range(2)]
        later = [seq2seq.ask(f"new{n}", tokens=11) for n in range(3)]
        for request in first:
            parts.engine.submit(request)
        answers.step(parts.engine)
        for request in later:
            parts.engine.submit(request)
        answers.run(parts.engine)
        check_answers(seq2seq, answers, [*first, *later])
        assert all({"old0", "old1"} <= {r.id for r in s.rows} for s in answers.records[:12])

    @pytest.mark.parametrize("tokens", [1, 2, 5])
    def test_a_decoder_that_begins_with_many_tokens_is_cut_and_encodes_once(
        self, seq2seq: Twin, layout: LayoutName, tokens: int
    ) -> None:
        requests = [
            seq2seq.ask("long", "three-site", tokens=9, more=7),
            seq2seq.ask("short", "five", tokens=4, more=2),
        ]
        answers = answer(seq2seq.engine(layout, tokens=tokens).engine, requests)
        check_answers(seq2seq, answers, requests)
        steps = [step for step in encoded(answers) if step]
        assert sorted(name for step in steps for name in step) == ["long", "short"]
        for record in answers.records:
            assert sum(row.tokens for row in record.rows) <= tokens


class TestComingAndGoing:
    @pytest.mark.parametrize(("rows", "tokens"), [(2, 7), (4, 30), (16, 300)])
    def test_joins_at_any_time(
        self, seq2seq: Twin, layout: LayoutName, rows: int, tokens: int
    ) -> None:
        parts = seq2seq.engine(layout, rows=rows, tokens=tokens, capacity=320)
        answers, requests = Answers(), crowd(seq2seq, 10)
        for number, request in enumerate(requests):
            parts.engine.submit(request)
            for _ in range(number % 3):
                answers.step(parts.engine)
        answers.run(parts.engine)
        check_answers(seq2seq, answers, requests)
        check_unused(parts)

    @pytest.mark.parametrize("steps", [0, 1, 2, 3, 6])
    def test_leaves_at_any_time(self, seq2seq: Twin, layout: LayoutName, steps: int) -> None:
        """Before its encoder pass, between parts of its decoder's beginning, and after them."""
        parts, answers = seq2seq.engine(layout, tokens=8, rows=4, capacity=448), Answers()
        others = crowd(seq2seq, 4)
        gone = seq2seq.ask("gone", "three-site", "embedded", tokens=30, more=9, new=9)
        for request in (*others[:2], gone, *others[2:]):
            parts.engine.submit(request)
        for _ in range(steps):
            answers.step(parts.engine)
        parts.engine.abort("gone")
        parts.engine.check_integrity()
        answers.run(parts.engine)
        check_answers(seq2seq, answers, others)
        assert "gone" not in answers.finished
        check_unused(parts)

    @pytest.mark.parametrize("steps", [0, 1, 2, 5])
    def test_a_deadline_at_any_time(self, seq2seq: Twin, layout: LayoutName, steps: int) -> None:
        clock, answers = Clock(), Answers()
        parts = seq2seq.engine(layout, tokens=8, capacity=448, clock=clock)
        others = crowd(seq2seq, 3)
        late = seq2seq.ask("late", "encoder", tokens=20, more=9, new=9, deadline=105.0)
        for request in (others[0], late, *others[1:]):
            parts.engine.submit(request)
        for _ in range(steps):
            answers.step(parts.engine)
        clock.now = 105.0
        answers.run(parts.engine)
        assert error_code(answers, "late") == "deadline_exceeded"
        check_answers(seq2seq, answers, others)
        check_unused(parts)

    def test_memory_for_one_at_a_time(self, seq2seq: Twin, layout: LayoutName) -> None:
        """Cross attention is what is short, and the decoder's rows are not held meanwhile."""
        parts = seq2seq.engine(layout, capacity=128)
        requests = [seq2seq.ask(f"r{n}", "cross", tokens=90 + n, new=3) for n in range(4)]
        answers = answer(parts.engine, requests)
        check_answers(seq2seq, answers, requests)
        assert all(len(record.rows) == 1 for record in answers.records)
        check_unused(parts)


class TestFaults:
    @pytest.mark.parametrize("healthy", [0, 1])
    @pytest.mark.parametrize("times", [1, None])
    def test_in_a_step_with_encoder_passes(
        self, seq2seq: Twin, layout: LayoutName, healthy: int, times: int | None
    ) -> None:
        """Halves of the batch run again, encoders and all; the culprit fails alone or not."""
        faults = RaisesFor({"ill"}, healthy=healthy, times=times)
        parts = seq2seq.engine(layout, failpoints=faults, capacity=1024)
        others, ill = crowd(seq2seq, 6), seq2seq.ask("ill", "three-site", tokens=12, more=3)
        answers = answer(parts.engine, [*others[:3], ill, *others[3:]])
        check_answers(seq2seq, answers, others)
        if times is None:
            assert error_code(answers, "ill") == "internal_error"
        else:
            check_answers(seq2seq, answers, [ill])
        check_unused(parts)

    @pytest.mark.parametrize("name", ["three-site", "encoder", "cross", "five", "embedded"])
    @pytest.mark.parametrize("tokens", [2048, 9])
    def test_a_prefix_that_is_not_finite_fails_alone(
        self, seq2seq: Twin, layout: LayoutName, name: str, tokens: int
    ) -> None:
        """Whichever site it is for; and whoever gets its memory next hears nothing of it."""
        source = seq2seq.source(ill={name})
        parts = seq2seq.engine(layout, source=source, tokens=tokens, capacity=448)
        others = [r for r in crowd(seq2seq, 6) if name not in r.prefixes]
        ill = seq2seq.ask("ill", name, tokens=11, more=2)
        answers = answer(parts.engine, [*others[:2], ill, *others[2:]])
        assert error_code(answers, "ill") == "non_finite_output"
        check_answers(seq2seq, answers, others)
        check_answers(seq2seq, answer(parts.engine, others), others)
        check_unused(parts)
