"""A prefix that cannot be loaded: its requests fail, and never run as the bare model."""

from __future__ import annotations

from support.checks import check_texts, error_code
from support.engines import Answers, HeldExecutor, answer
from support.tiny import Tiny, ask

from prefixmux_server.memory.entries import State
from prefixmux_server.memory.prefix import PrefixKey
from prefixmux_server.memory.select import LayoutName


class TestPrefixThatCannotBeLoaded:
    def test_fails_alone_and_never_as_the_bare_model(self, tiny: Tiny, layout: LayoutName) -> None:
        parts = tiny.engine(layout, source=tiny.source(a=10, b=4))
        others = [ask("bare"), ask("task", "a"), ask("both", "a", "b"), ask("other", "b")]
        answers = answer(parts.engine, [ask("lost", "missing"), *others])
        assert error_code(answers, "lost") == "prefix_unavailable"
        assert "lost" not in answers.tokens
        assert answers.finished["lost"].prefixes == ()
        check_texts(tiny, parts, answers, others)

    def test_one_missing_of_two_fails_the_request(self, tiny: Tiny, layout: LayoutName) -> None:
        parts = tiny.engine(layout, source=tiny.source(a=10))
        requests = [ask("first", "missing", "a"), ask("second", "a", "missing"), ask("fine", "a")]
        answers = answer(parts.engine, requests)
        assert error_code(answers, "first") == error_code(answers, "second") == "prefix_unavailable"
        check_texts(tiny, parts, answers, requests[2:])

    def test_is_loaded_again_for_a_later_request(self, tiny: Tiny, layout: LayoutName) -> None:
        parts = tiny.engine(layout)
        assert error_code(answer(parts.engine, [ask("one", "late")]), "one") == "prefix_unavailable"
        parts.source.add("late", tiny.prefix(5))
        again = ask("two", "late")
        check_texts(tiny, parts, answer(parts.engine, [again]), [again])
        assert len(parts.source.loads) == 2

    def test_all_who_waited_for_it_hear_of_it(self, tiny: Tiny, layout: LayoutName) -> None:
        held = HeldExecutor()
        parts = tiny.engine(layout, executor=held)
        answers = Answers()
        for number in range(5):
            parts.engine.submit(ask(f"{number}", "missing"))
        assert not answers.step(parts.engine)
        held.run_all()
        answers.run(parts.engine)
        assert {error_code(answers, f"{n}") for n in range(5)} == {"prefix_unavailable"}
        assert parts.residency.state(PrefixKey("default", "missing")) is None

    def test_whoever_waits_may_leave_before_the_load_fails(
        self, tiny: Tiny, layout: LayoutName
    ) -> None:
        held = HeldExecutor()
        parts = tiny.engine(layout, executor=held)
        parts.engine.submit(ask("gone", "missing"))
        parts.engine.abort("gone")
        assert parts.residency.state(PrefixKey("default", "missing")) is State.LOADING
        held.run_all()
        parts.engine.step()
        parts.engine.check_integrity()
        assert parts.residency.state(PrefixKey("default", "missing")) is None
        assert not parts.engine.has_work

    def test_a_load_that_dies_of_anything(self, tiny: Tiny, layout: LayoutName) -> None:
        """Also of what is no PrefixLoadError, or of a source that hands out another's prefix."""
        parts = tiny.engine(layout, source=tiny.source(a=10, b=4))
        a, b = PrefixKey("default", "a"), PrefixKey("default", "b")
        swapped = parts.source.prefixes[b]
        parts.source.prefixes[a] = swapped
        answers = answer(parts.engine, [ask("wrong", "a"), ask("right", "b")])
        assert error_code(answers, "wrong") == "prefix_unavailable"
        check_texts(tiny, parts, answers, [ask("right", "b")])
