"""What goes wrong in one request stays in that request."""

from __future__ import annotations

from math import ceil, log2

import pytest
import torch
from support.checks import check_texts, error_code
from support.engines import answer, submit
from support.faults import NaNFor, Passes, RaisesFor
from support.tiny import Tiny, ask

from prefixmux_server.engine.messages import Submit
from prefixmux_server.memory.select import LayoutName


def crowd(count: int, *, new: int = 8) -> list[Submit]:
    """Neighbours of all kinds: bare, behind a prefix, with long and short prompts."""
    chains: list[tuple[str, ...]] = [(), ("a",), ("b",), ("a", "b")]
    return [ask(f"n{n}", *chains[n % 4], tokens=1 + 3 * n, new=new) for n in range(count)]


class TestNonFiniteOutput:
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -3e38])
    @pytest.mark.parametrize("budget", [2048, 5])
    def test_a_prefix_that_overflows_fails_alone(
        self, tiny: Tiny, layout: LayoutName, value: float, budget: int
    ) -> None:
        poison = tiny.prefix(6)
        # In keys, too: values alone, however large, may stay finite in one kernel or another.
        poison[:, :, 2:4] = value
        parts = tiny.engine(layout, source=tiny.source(a=10, b=4), tokens=budget)
        parts.source.add("poison", poison)
        others = crowd(6)
        requests = [*others[:3], ask("ill", "poison", tokens=11), *others[3:]]
        answers = answer(parts.engine, requests)
        assert error_code(answers, "ill") == "non_finite_output"
        assert answers.finished["ill"].prefixes == ("poison",)
        check_texts(tiny, parts, answers, others)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    @pytest.mark.parametrize("step", [0, 3])
    def test_logits_that_break_at_any_step_fail_alone(
        self, tiny: Tiny, layout: LayoutName, step: int, value: float
    ) -> None:
        faults = NaNFor("ill", step=step, value=value)
        parts = tiny.engine(layout, source=tiny.source(a=10, b=4), failpoints=faults)
        others = crowd(6)
        ill = ask("ill", "a")
        answers = answer(parts.engine, [*others[:3], ill, *others[3:]])
        assert error_code(answers, "ill") == "non_finite_output"
        assert answers.tokens.get("ill", []) == tiny.expected(parts.source, ill)[:step]
        check_texts(tiny, parts, answers, others)

    def test_a_banned_token_is_no_fault(self, tiny: Tiny, layout: LayoutName) -> None:
        """-inf is how a model bans a token."""
        faults = NaNFor("fine", value=float("-inf"))
        parts = tiny.engine(layout, failpoints=faults)
        assert answer(parts.engine, [ask("fine")]).finished["fine"].reason == "length"

    def test_its_memory_does_not_poison_the_next(self, tiny: Tiny, layout: LayoutName) -> None:
        parts = tiny.engine(layout, source=tiny.source(a=10), capacity=128)
        poison = torch.full_like(tiny.prefix(20), float("nan"))
        parts.source.add("poison", poison)
        for turn in range(4):
            ill = answer(parts.engine, [ask("ill", "poison", tokens=30)])
            assert error_code(ill, "ill") == "non_finite_output"
            fine = ask(f"{turn}", "a", tokens=30, new=20)
            check_texts(tiny, parts, answer(parts.engine, [fine]), [fine])


class TestExceptionInAForwardPass:
    @pytest.mark.parametrize("neighbours", [1, 3, 6, 12])
    def test_a_persistent_one_ends_its_request_alone(
        self, tiny: Tiny, layout: LayoutName, neighbours: int
    ) -> None:
        faults = RaisesFor({"ill"}, healthy=2)
        parts = tiny.engine(layout, source=tiny.source(a=10, b=4), failpoints=faults)
        others = crowd(neighbours)
        half = neighbours // 2
        ill = ask("ill", "a")
        answers = answer(parts.engine, [*others[:half], ill, *others[half:]])
        assert error_code(answers, "ill") == "internal_error"
        assert answers.tokens["ill"] == tiny.expected(parts.source, ill)[:2]
        check_texts(tiny, parts, answers, others)
        extra = len(faults.seen) - len(answers.records)
        assert extra <= 2 * ceil(log2(neighbours + 1)) + 1

    def test_one_that_goes_away_is_not_noticed(self, tiny: Tiny, layout: LayoutName) -> None:
        faults = RaisesFor({"n2"}, healthy=1, times=1)
        parts = tiny.engine(layout, source=tiny.source(a=10, b=4), failpoints=faults)
        others = crowd(5)
        check_texts(tiny, parts, answer(parts.engine, others), others)

    def test_several_culprits(self, tiny: Tiny, layout: LayoutName) -> None:
        faults = RaisesFor({"n1", "n4", "n5"}, healthy=3)
        parts = tiny.engine(layout, source=tiny.source(a=10, b=4), failpoints=faults)
        requests = crowd(8)
        answers = answer(parts.engine, requests)
        assert [error_code(answers, i) for i in ("n1", "n4", "n5")] == ["internal_error"] * 3
        fine = [request for request in requests if request.id not in faults.culprits]
        check_texts(tiny, parts, answers, fine)

    @pytest.mark.parametrize("times", [1, None])
    def test_in_the_middle_of_a_prompt_in_chunks(
        self, tiny: Tiny, layout: LayoutName, times: int | None
    ) -> None:
        """A chunk that is run again writes the same cells; neighbours decode meanwhile."""
        faults = RaisesFor({"long"}, healthy=2, times=times)
        parts = tiny.engine(layout, source=tiny.source(a=10, b=4), failpoints=faults, tokens=9)
        others = crowd(4, new=24)
        long = ask("long", "a", tokens=50)
        answers = answer(parts.engine, [*others, long])
        check_texts(tiny, parts, answers, others)
        if times is None:
            assert error_code(answers, "long") == "internal_error"
        else:
            check_texts(tiny, parts, answers, [long])

    def test_a_token_outside_the_vocabulary(self, tiny: Tiny, layout: LayoutName) -> None:
        parts = tiny.engine(layout, source=tiny.source(a=10, b=4))
        others = crowd(4)
        ill = submit("ill", [5, 10_000, 6], max_new_tokens=4)
        answers = answer(parts.engine, [*others, ill])
        assert error_code(answers, "ill") == "internal_error"
        check_texts(tiny, parts, answers, others)

    def test_messages_quote_nothing(self, tiny: Tiny, layout: LayoutName) -> None:
        parts = tiny.engine(layout, failpoints=RaisesFor({"ill"}))
        error = answer(parts.engine, [ask("ill")]).finished["ill"].error
        assert error is not None
        assert "planted" not in error.message

    def test_everything_is_given_back(self, tiny: Tiny, layout: LayoutName) -> None:
        faults = RaisesFor({"ill"})
        parts = tiny.engine(layout, source=tiny.source(a=10), capacity=128, failpoints=faults)
        for _ in range(3):
            answer(parts.engine, [ask("ill", "a", tokens=90)])
            whole = ask("whole", tokens=120, new=9)
            check_texts(tiny, parts, answer(parts.engine, [whole]), [whole])


def test_without_faults_a_step_is_one_pass(tiny: Tiny, layout: LayoutName) -> None:
    passes = Passes()
    parts = tiny.engine(layout, source=tiny.source(a=10, b=4), failpoints=passes, tokens=16)
    answers = answer(parts.engine, crowd(9))
    assert len(passes.seen) == len(answers.records)
    assert [set(ids) for ids in passes.seen] == [{r.id for r in s.rows} for s in answers.records]


def test_a_choice_that_raises_fails_alone(tiny: Tiny, layout: LayoutName) -> None:
    """No client can send such a seed; whatever else raises there must end one request only."""
    parts = tiny.engine(layout, source=tiny.source(a=10, b=4))
    others = crowd(5)
    ill = submit("ill", [3, 4], prefixes=["a"], temperature=1.0, seed=-1)
    answers = answer(parts.engine, [*others[:2], ill, *others[2:]])
    assert error_code(answers, "ill") == "internal_error"
    check_texts(tiny, parts, answers, others)
