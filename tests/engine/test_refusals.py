"""What can never run is refused with a typed error, and nobody behind it waits."""

from __future__ import annotations

from collections.abc import Callable

from support.checks import error_code
from support.engines import EngineParts, answer
from support.tiny import Tiny, ask

from prefixmux_server.engine.messages import Submit
from prefixmux_server.memory.prefix import PrefixKey
from prefixmux_server.memory.select import LayoutName


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
        assert self.refused(tiny, parts, ask("both", "large", "a")) == "prefix_unavailable"
        assert PrefixKey("default", "large") not in source.loads
        finished = answer(parts.engine, [ask("again", "large")]).finished["again"]
        assert finished.error is not None
        assert finished.error.reason == "too_long"

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
