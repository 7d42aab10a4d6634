"""A client that leaves frees its row at once, wherever its request is."""

from __future__ import annotations

import pytest
from support.checks import check_empty
from support.engines import Answers, HeldExecutor, answer
from support.tiny import Tiny, ask

from prefixmux_server.memory.prefix import PrefixKey
from prefixmux_server.memory.select import LayoutName


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
