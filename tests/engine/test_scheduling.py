"""Who runs when: budgets, order, loading prefixes and short memory."""

from __future__ import annotations

import pytest
from support.checks import check_texts, started
from support.engines import Answers, HeldExecutor, answer
from support.tiny import Tiny, ask

from prefixmux_server.engine.record import RowRecord
from prefixmux_server.memory.select import LayoutName


class TestBudgets:
    @pytest.mark.parametrize(("rows", "tokens"), [(1, 1), (1, 64), (3, 7), (4, 4), (64, 10)])
    def test_are_never_exceeded(
        self, tiny: Tiny, layout: LayoutName, rows: int, tokens: int
    ) -> None:
        parts = tiny.engine(layout, source=tiny.source(a=10), rows=rows, tokens=tokens)
        requests = [ask(f"{n}", *["a"][: n % 2], tokens=1 + 4 * n, new=1 + n) for n in range(10)]
        answers = answer(parts.engine, requests)
        check_texts(tiny, parts, answers, requests)
        for record in answers.records:
            assert 0 < sum(row.tokens for row in record.rows) <= tokens
            assert len(record.rows) <= rows

    def test_every_decode_advances_while_a_prompt_is_prefilled(
        self, tiny: Tiny, layout: LayoutName
    ) -> None:
        parts = tiny.engine(layout, source=tiny.source(a=10), tokens=8)
        decoding = [ask(f"{n}", "a", tokens=2, new=60) for n in range(3)]
        answers = Answers()
        for request in decoding:
            parts.engine.submit(request)
        while len(answers.tokens) < 3:
            answers.step(parts.engine)
        long = ask("long", tokens=100, new=5)
        parts.engine.submit(long)
        done = len(answers.records)
        answers.run(parts.engine)
        check_texts(tiny, parts, answers, [*decoding, long])
        chunks = [
            record
            for record in answers.records[done:]
            if any(row.id == "long" and row.phase == "prefill" for row in record.rows)
        ]
        assert len(chunks) == 20
        for record in chunks:
            assert {row.id for row in record.rows} == {"0", "1", "2", "long"}
            assert sum(row.tokens for row in record.rows) == 8

    def test_fewer_tokens_than_rows_still_serves_everyone(
        self, tiny: Tiny, layout: LayoutName
    ) -> None:
        parts = tiny.engine(layout, rows=8, tokens=3)
        requests = [ask(f"{n}", tokens=4, new=6) for n in range(8)]
        check_texts(tiny, parts, answer(parts.engine, requests), requests)

    def test_a_prompt_cut_into_single_tokens(self, tiny: Tiny, layout: LayoutName) -> None:
        """A chunk of one token is no decode: it gives no logits."""
        parts = tiny.engine(layout, source=tiny.source(a=10), tokens=1)
        request = ask("one", "a", tokens=12, new=4)
        answers = answer(parts.engine, [request])
        check_texts(tiny, parts, answers, [request])
        assert [r.rows[0].phase for r in answers.records] == ["prefill"] * 12 + ["decode"] * 3


class TestLoading:
    def test_a_loading_prefix_is_overtaken(self, tiny: Tiny, layout: LayoutName) -> None:
        held = HeldExecutor()
        parts = tiny.engine(layout, source=tiny.source(slow=10), executor=held, rows=2)
        slow, bare = ask("slow", "slow"), [ask(f"bare{n}", new=4) for n in range(6)]
        for request in (slow, *bare):
            parts.engine.submit(request)
        answers = Answers()
        while answers.step(parts.engine):
            assert "slow" not in answers.tokens
        check_texts(tiny, parts, answers, bare)
        assert parts.engine.has_work
        held.run_all()
        answers.run(parts.engine)
        check_texts(tiny, parts, answers, [slow])

    def test_starts_at_arrival_and_once_for_all(self, tiny: Tiny, layout: LayoutName) -> None:
        held = HeldExecutor()
        parts = tiny.engine(layout, source=tiny.source(a=10), executor=held)
        parts.engine.submit(ask("first", "a"))
        assert len(held.held) == 1
        parts.engine.submit(ask("second", "a"))
        parts.engine.submit(ask("third", "a", "a"))
        assert len(held.held) == 1
        held.run_all()
        Answers().run(parts.engine)
        assert len(parts.source.loads) == 1

    def test_a_burst_of_a_cold_task_loads_once(self, tiny: Tiny, layout: LayoutName) -> None:
        held = HeldExecutor()
        parts = tiny.engine(layout, source=tiny.source(a=10), executor=held)
        requests = [ask(f"{n}", "a") for n in range(8)]
        for request in requests:
            parts.engine.submit(request)
        assert len(held.held) == 1
        held.run_all()
        check_texts(tiny, parts, Answers().run(parts.engine), requests)


class TestPriority:
    def test_higher_first_then_in_order_of_arrival(self, tiny: Tiny, layout: LayoutName) -> None:
        parts = tiny.engine(layout, rows=1)
        given = [0, 2, 1, 2, -1, 0]
        requests = [ask(f"{n}", new=2, priority=p) for n, p in enumerate(given)]
        assert started(answer(parts.engine, requests)) == ["1", "3", "2", "0", "5", "4"]

    def test_does_not_interrupt_who_runs(self, tiny: Tiny, layout: LayoutName) -> None:
        parts = tiny.engine(layout, rows=1)
        answers = Answers()
        parts.engine.submit(ask("calm", new=6))
        answers.step(parts.engine)
        parts.engine.submit(ask("urgent", priority=9))
        answers.run(parts.engine)
        assert list(answers.finished) == ["calm", "urgent"]


def test_records_tell_what_ran(tiny: Tiny, layout: LayoutName) -> None:
    parts = tiny.engine(layout, source=tiny.source(a=10), tokens=4, rows=2)
    requests = [ask("one", "a", tokens=6, new=2), ask("two", tokens=1, new=3), ask("three", new=1)]
    answers = answer(parts.engine, requests)
    assert [record.step for record in answers.records] == list(range(1, len(answers.records) + 1))
    first, second, third = answers.records[:3]
    assert set(first.rows) == {
        RowRecord("one", "prefill", 3, 10),
        RowRecord("two", "prefill", 1, 0),
    }
    assert first.waiting == 1
    assert set(second.rows) == {
        RowRecord("one", "prefill", 3, 10),
        RowRecord("two", "decode", 1, 0),
    }
    assert set(third.rows) == {RowRecord("one", "decode", 1, 10), RowRecord("two", "decode", 1, 0)}
    assert answers.records[-1].waiting == 0
    assert all(record.seconds >= 0 for record in answers.records)
