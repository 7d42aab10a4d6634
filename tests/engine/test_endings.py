"""How a request ends by itself, and how long it took."""

from __future__ import annotations

import pytest
from support.engines import Answers, HeldExecutor, answer, submit
from support.faults import Clock
from support.models import EOS
from support.tiny import Tiny, ask

from prefixmux_server.engine.messages import Submit
from prefixmux_server.memory.select import LayoutName


class TestReasons:
    def text(self, tiny: Tiny) -> tuple[Submit, list[int]]:
        request = ask("one", tokens=9, new=16)
        return request, tiny.greedy(request.input_ids, 16)

    def test_length(self, tiny: Tiny, layout: LayoutName) -> None:
        request, text = self.text(tiny)
        parts = tiny.engine(layout)
        answers = answer(parts.engine, [request])
        assert answers.tokens["one"] == text
        finished = answers.finished["one"]
        assert (finished.reason, finished.stop, finished.error) == ("length", None, None)

    def test_one_token(self, tiny: Tiny, layout: LayoutName) -> None:
        parts = tiny.engine(layout, source=tiny.source(a=10))
        requests = [ask("bare", new=1), ask("long", tokens=70, new=1), ask("task", "a", new=1)]
        answers = answer(parts.engine, requests)
        for request in requests:
            assert answers.tokens[request.id] == tiny.expected(parts.source, request)
        assert len(answers.records) == 1

    def test_stop_token(self, tiny: Tiny, layout: LayoutName) -> None:
        request, text = self.text(tiny)
        stop = text[6]
        first = text.index(stop)
        parts = tiny.engine(layout)
        again = submit("one", request.input_ids, max_new_tokens=16, stop_token_ids=(stop,))
        answers = answer(parts.engine, [again])
        assert answers.tokens["one"] == text[: first + 1]
        assert (answers.finished["one"].reason, answers.finished["one"].stop) == ("stop", stop)

    def test_stop_token_as_the_very_last_one(self, tiny: Tiny, layout: LayoutName) -> None:
        request, text = self.text(tiny)
        parts = tiny.engine(layout)
        last = submit(
            "one", request.input_ids, max_new_tokens=1, stop_token_ids=(text[0],), ignore_eos=True
        )
        assert answer(parts.engine, [last]).finished["one"].reason == "stop"

    def test_eos(self, tiny: Tiny, layout: LayoutName) -> None:
        """Found by search: a prompt after which the model ends by itself."""
        parts = tiny.engine(layout)
        request, text = next(
            (r, t)
            for r in (ask(f"{n}", new=12, ignore_eos=False) for n in range(400))
            if EOS in (t := tiny.greedy(r.input_ids, 12))[1:-1] and t[0] != EOS
        )
        answers = answer(parts.engine, [request])
        assert answers.tokens[request.id] == text[: text.index(EOS) + 1]
        assert answers.finished[request.id].reason == "eos"
        ignoring = submit("i", request.input_ids, max_new_tokens=12, ignore_eos=True)
        assert answer(parts.engine, [ignoring]).tokens["i"] == text
        longer = submit("l", request.input_ids, max_new_tokens=12, min_new_tokens=12)
        forced = answer(parts.engine, [longer])
        assert len(forced.tokens["l"]) == 12
        assert EOS not in forced.tokens["l"][:-1]

    def test_a_minimum_length_bans_stop_tokens_until_then(
        self, tiny: Tiny, layout: LayoutName
    ) -> None:
        request, text = self.text(tiny)
        parts = tiny.engine(layout)
        minimum = submit(
            "one",
            request.input_ids,
            max_new_tokens=16,
            min_new_tokens=8,
            stop_token_ids=tuple(set(text)),
            ignore_eos=True,
        )
        answers = answer(parts.engine, [minimum])
        made = answers.tokens["one"]
        assert len(made) >= 8
        assert not set(made[:8]) & {*text, EOS}


class TestTiming:
    def test_of_a_request_that_waits_loads_and_runs(self, tiny: Tiny, layout: LayoutName) -> None:
        clock, held, answers = Clock(), HeldExecutor(), Answers()
        source = tiny.source(a=10)
        parts = tiny.engine(layout, source=source, executor=held, clock=clock)
        parts.engine.submit(ask("one", "a", new=3))
        clock.now += 2
        answers.step(parts.engine)
        clock.now += 3
        held.run_all()
        for _ in range(3):
            answers.step(parts.engine)
            clock.now += 10
        timing = answers.finished["one"].timing
        assert timing.prefix_load_s == pytest.approx(5)
        assert timing.queue_s == pytest.approx(5)
        assert timing.ttft_s == pytest.approx(5)
        assert timing.total_s == pytest.approx(25)

    def test_waiting_for_a_row_is_no_loading(self, tiny: Tiny, layout: LayoutName) -> None:
        clock, answers = Clock(), Answers()
        parts = tiny.engine(layout, source=tiny.source(a=10), clock=clock, rows=1)
        for request in (ask("first", "a", new=2), ask("second", "a", new=1), ask("bare", new=1)):
            parts.engine.submit(request)
        while parts.engine.has_work:
            answers.step(parts.engine)
            clock.now += 1
        assert answers.finished["second"].timing.queue_s == pytest.approx(2)
        assert answers.finished["bare"].timing.queue_s == pytest.approx(3)
        loading = [f.timing.prefix_load_s for f in answers.finished.values()]
        assert loading == [0, 0, 0]

    def test_a_clock_that_starts_at_zero(self, tiny: Tiny, layout: LayoutName) -> None:
        clock, answers = Clock(0.0), Answers()
        parts = tiny.engine(layout, clock=clock)
        parts.engine.submit(ask("one", new=3))
        while parts.engine.has_work:
            answers.step(parts.engine)
            clock.now += 1
        timing = answers.finished["one"].timing
        assert (timing.ttft_s, timing.total_s) == (0, 2)
