"""How a request ends: by itself, by its deadline, by its client, or before it began."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.engines import Answers, EngineParts, HeldExecutor, answer, submit
from support.faults import Clock
from support.models import EOS
from support.tiny import Tiny, ask

from prefixmux_server.engine.messages import Submit
from prefixmux_server.memory.prefix import PrefixKey
from prefixmux_server.memory.select import LayoutName


def check_empty(tiny: Tiny, parts: EngineParts) -> None:
    """Nothing is held: a request as large as all memory still runs."""
    assert not parts.engine.has_work
    assert parts.engine.step() is None
    parts.engine.check_integrity()
    capacity = parts.layout.capacity_tokens
    whole = ask("whole", tokens=capacity - 4, new=5)
    assert answer(parts.engine, [whole]).tokens["whole"] == tiny.expected(parts.source, whole)


def error_code(answers: Answers, request_id: str) -> str:
    finished = answers.finished[request_id]
    assert finished.reason is None
    assert finished.error is not None
    return finished.error.code


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


class TestAbort:
    def test_in_the_queue(self, tiny: Tiny, layout: LayoutName) -> None:
        source = tiny.source(a=10)
        parts = tiny.engine(layout, source=source, rows=1, capacity=128)
        answers = Answers()
        parts.engine.submit(ask("running", new=3))
        answers.step(parts.engine)
        parts.engine.submit(ask("waiting", "a"))
        parts.engine.abort("waiting")
        answers.run(parts.engine)
        assert set(answers.finished) == {"running"}
        check_empty(tiny, parts)

    def test_while_its_prefix_loads(self, tiny: Tiny, layout: LayoutName) -> None:
        held = HeldExecutor()
        source = tiny.source(a=10)
        parts = tiny.engine(layout, source=source, capacity=128, executor=held)
        parts.engine.submit(ask("gone", "a"))
        parts.engine.step()
        parts.engine.abort("gone")
        held.run_all()
        parts.engine.step()
        check_empty(tiny, parts)

    @pytest.mark.parametrize("steps", [1, 3, 8, 12])
    def test_in_prefill_and_in_decode(self, tiny: Tiny, layout: LayoutName, steps: int) -> None:
        source = tiny.source(a=10, b=4)
        parts = tiny.engine(layout, source=source, tokens=16, capacity=256)
        answers = Answers()
        others = [ask("left", "a", new=20), ask("right", "b", new=20)]
        for request in (others[0], ask("gone", "a", "b", tokens=70, new=30), others[1]):
            parts.engine.submit(request)
        for _ in range(steps):
            answers.step(parts.engine)
        parts.engine.abort("gone")
        parts.engine.check_integrity()
        seen = len(answers.tokens.get("gone", []))
        answers.run(parts.engine)
        assert len(answers.tokens.get("gone", [])) == seen
        assert "gone" not in answers.finished
        for request in others:
            assert answers.tokens[request.id] == tiny.expected(source, request)
        check_empty(tiny, parts)

    def test_unpins_its_prefix(self, tiny: Tiny, layout: LayoutName) -> None:
        """Host memory for one prefix: the next task can only come in when it is free."""
        source = tiny.source(a=10, b=10)
        parts = tiny.engine(layout, source=source, host_bytes=tiny.bytes_of(10))
        answers = Answers()
        parts.engine.submit(ask("gone", "a", new=50))
        answers.step(parts.engine)
        other = ask("other", "b")
        parts.engine.submit(other)
        answers.step(parts.engine)
        assert "other" not in answers.tokens
        parts.engine.abort("gone")
        answers.run(parts.engine)
        assert answers.tokens["other"] == tiny.expected(source, other)
        assert parts.residency.state(PrefixKey("default", "a")) is None

    def test_of_what_is_not_there(self, tiny: Tiny, layout: LayoutName) -> None:
        parts = tiny.engine(layout, capacity=128)
        parts.engine.abort("never")
        answer(parts.engine, [ask("done", new=1)])
        parts.engine.abort("done")
        parts.engine.submit(ask("twice"))
        parts.engine.abort("twice")
        parts.engine.abort("twice")
        check_empty(tiny, parts)

    def test_frees_the_id(self, tiny: Tiny, layout: LayoutName) -> None:
        parts = tiny.engine(layout)
        parts.engine.submit(ask("again"))
        with pytest.raises(ValueError, match="under way"):
            parts.engine.submit(ask("again"))
        parts.engine.abort("again")
        again = ask("again", tokens=3)
        assert answer(parts.engine, [again]).tokens["again"] == tiny.expected(parts.source, again)
        answer(parts.engine, [ask("again", new=1)])


class TestRefusals:
    """What can never run is refused with a typed error, and nobody behind it waits."""

    def refused(self, tiny: Tiny, parts: EngineParts, request: Submit) -> str:
        others = [ask("before", "a", new=3), ask("after", "a", new=3)]
        answers = answer(parts.engine, [others[0], request, others[1]])
        for other in others:
            assert answers.tokens[other.id] == tiny.expected(parts.source, other)
        assert request.id not in answers.tokens
        assert answers.finished[request.id].timing.ttft_s is None
        return error_code(answers, request.id)

    def test_too_long_for_the_context(self, tiny: Tiny, layout: LayoutName) -> None:
        parts = tiny.engine(layout, source=tiny.source(a=10))
        context = tiny.loaded.context
        assert context is not None
        fits = ask("fits", "a", tokens=context - 10 - 3, new=4)
        assert answer(parts.engine, [fits]).tokens["fits"] == tiny.expected(parts.source, fits)
        ask_more: Callable[[int, int], Submit] = lambda tokens, new: ask(  # noqa: E731
            "more", "a", tokens=tokens, new=new
        )
        for request in (ask_more(context - 10 - 3, 5), ask_more(context - 10 - 2, 4)):
            assert self.refused(tiny, parts, request) == "prompt_too_long"

    def test_too_long_for_the_memory(self, tiny: Tiny, layout: LayoutName) -> None:
        parts = tiny.engine(layout, source=tiny.source(a=10), capacity=128)
        fits = ask("fits", "a", tokens=110, new=9)
        assert answer(parts.engine, [fits]).tokens["fits"] == tiny.expected(parts.source, fits)
        assert self.refused(tiny, parts, ask("more", "a", tokens=110, new=10)) == "prompt_too_long"

    def test_a_memory_smaller_than_anything(self, tiny: Tiny, layout: LayoutName) -> None:
        parts = tiny.engine(layout, capacity=1)
        assert error_code(answer(parts.engine, [ask("one")]), "one") == "prompt_too_long"

    def test_a_prefix_larger_than_the_host_budget(self, tiny: Tiny, layout: LayoutName) -> None:
        source = tiny.source(a=10, large=30)
        parts = tiny.engine(layout, source=source, host_bytes=tiny.bytes_of(20))
        assert self.refused(tiny, parts, ask("large", "large")) == "prefix_unavailable"
        assert PrefixKey("default", "large") not in source.loads

    def test_a_prefix_larger_than_the_device_budget(self, tiny: Tiny) -> None:
        source = tiny.source(a=10, large=30)
        parts = tiny.engine("slots", source=source, device_bytes=tiny.bytes_of(20))
        assert self.refused(tiny, parts, ask("large", "large")) == "prompt_too_long"
        assert self.refused(tiny, parts, ask("sum", "a", "large")) == "prompt_too_long"

    def test_nothing_to_run(self, tiny: Tiny, layout: LayoutName) -> None:
        """No token in, or none out: such a row would stand still, or outgrow its memory."""
        parts = tiny.engine(layout, source=tiny.source(a=10))
        for request in (ask("empty", tokens=0), ask("none", "a", new=0), ask("less", new=-3)):
            assert self.refused(tiny, parts, request) == "invalid_request"


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
