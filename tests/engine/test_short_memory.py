"""Memory for fewer than all: order is kept, and everyone comes to their turn."""

from __future__ import annotations

from support.checks import check_texts, started
from support.engines import Answers, HeldExecutor, answer
from support.tiny import Tiny, ask

from prefixmux_server.memory.select import LayoutName


class TestShortMemory:
    def test_a_large_request_is_not_starved_by_small_ones(
        self, tiny: Tiny, layout: LayoutName
    ) -> None:
        """While it waits for room nobody overtakes it, however many come."""
        parts = tiny.engine(layout, capacity=256)
        answers = Answers()
        small = [ask(f"small{n}", tokens=4, new=20) for n in range(2)]
        for request in small:
            parts.engine.submit(request)
        answers.step(parts.engine)
        large = ask("large", tokens=230, new=20)
        parts.engine.submit(large)
        for number in range(2, 40):
            small.append(ask(f"small{number}", tokens=4, new=20))
            parts.engine.submit(small[-1])
            answers.step(parts.engine)
        answers.run(parts.engine)
        check_texts(tiny, parts, answers, [large, *small])
        assert started(answers)[:3] == ["small0", "small1", "large"]

    def test_host_memory_for_one_prefix_only(self, tiny: Tiny, layout: LayoutName) -> None:
        source = tiny.source(a=10, b=10, c=10)
        parts = tiny.engine(layout, source=source, host_bytes=tiny.bytes_of(10))
        requests = [ask(f"{n}", "abc"[n % 3], new=3) for n in range(9)]
        answers = answer(parts.engine, requests)
        check_texts(tiny, parts, answers, requests)
        assert started(answers) == [request.id for request in requests]

    def test_an_urgent_request_gets_the_memory_that_a_waiting_one_holds(
        self, tiny: Tiny, layout: LayoutName
    ) -> None:
        """Host memory holds one prefix, which a waiting request has pinned: no deadlock."""
        source = tiny.source(a=10, b=10)
        parts = tiny.engine(layout, source=source, host_bytes=tiny.bytes_of(10), rows=1)
        running, waiting = ask("running", new=4), ask("waiting", "a")
        answers = Answers()
        parts.engine.submit(running)
        answers.step(parts.engine)
        parts.engine.submit(waiting)
        urgent = ask("urgent", "b", priority=1)
        parts.engine.submit(urgent)
        answers.run(parts.engine)
        check_texts(tiny, parts, answers, [running, waiting, urgent])
        assert started(answers) == ["running", "urgent", "waiting"]

    def test_an_urgent_request_while_the_other_s_prefix_is_loading(
        self, tiny: Tiny, layout: LayoutName
    ) -> None:
        held = HeldExecutor()
        source = tiny.source(a=10, b=10)
        parts = tiny.engine(layout, source=source, host_bytes=tiny.bytes_of(10), executor=held)
        requests = [ask("calm", "a"), ask("urgent", "b", priority=1)]
        answers = Answers()
        for request in requests:
            parts.engine.submit(request)
            answers.step(parts.engine)
        while parts.engine.has_work:
            held.run_all()
            assert answers.step(parts.engine) or held.held, "nothing can ever happen again"
        check_texts(tiny, parts, answers, requests)

    def test_two_prefixes_that_only_fit_one_at_a_time(self, tiny: Tiny, layout: LayoutName) -> None:
        """A request that can never be served is refused; who waits behind it goes on."""
        source = tiny.source(a=10, b=10)
        parts = tiny.engine(layout, source=source, host_bytes=tiny.bytes_of(15))
        requests = [ask("both", "a", "b"), ask("behind", "b"), ask("bare")]
        answers = answer(parts.engine, requests)
        error = answers.finished["both"].error
        assert error is not None
        assert error.code == "invalid_request"
        assert "compose fewer" in error.message
        assert "--prefix-host-bytes" in error.message
        check_texts(tiny, parts, answers, requests[1:])

    def test_the_same_prefix_twice_counts_once_in_the_budget(
        self, tiny: Tiny, layout: LayoutName
    ) -> None:
        source = tiny.source(a=10)
        budget = tiny.bytes_of(10)
        parts = tiny.engine(layout, source=source, host_bytes=budget, device_bytes=budget)
        request = ask("twice", "a", "a")
        check_texts(tiny, parts, answer(parts.engine, [request]), [request])
