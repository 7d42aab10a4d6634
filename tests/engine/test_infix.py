"""Infixes in the engine: what comes before, what behind, and what is added once and no more."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from engine.twin import Twin, check_answers, check_unused
from support.checks import error_code
from support.engines import Answers, answer
from support.faults import Passes

from prefixmux_server.engine.messages import Submit
from prefixmux_server.memory.select import LayoutName

CHAINS = (
    ("infix-embedded",),
    ("infix",),
    ("five", "infix-embedded", "unshifted"),
    ("text", "infix", "five"),
)


class FailsAt(Passes):
    """The passes of these numbers raise, whoever is in them."""

    def __init__(self, *numbers: int) -> None:
        super().__init__()
        self.numbers = set(numbers)

    def before_forward(self, ids: Sequence[str]) -> None:
        super().before_forward(ids)
        if len(self.seen) - 1 in self.numbers and len(ids) > 1:
            raise RuntimeError("a fault that the test planted")


def crowd(twin: Twin, **options: int) -> list[Submit]:
    return [twin.ask(f"{n}", *chain, **options) for n, chain in enumerate(CHAINS)]


@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 7, 64])
@pytest.mark.parametrize(("before", "behind"), [(1, 1), (5, 3), (2, 8)])
def test_cut_anywhere(
    causal: Twin, layout: LayoutName, tokens: int, before: int, behind: int
) -> None:
    """Within x, within the embeddings, within y: what is added is there before y runs."""
    parts = causal.engine(layout, tokens=tokens, capacity=512)
    requests = crowd(causal, tokens=before, more=behind, new=4)
    check_answers(causal, answer(parts.engine, requests), requests)
    check_unused(parts)


@pytest.mark.parametrize("tokens", [64, 9])
@pytest.mark.parametrize("number", range(5))
def test_a_step_that_fails_on_the_way_adds_nothing_twice(
    causal: Twin, layout: LayoutName, number: int, tokens: int
) -> None:
    """The batch is run again in halves, after what has been written before it failed."""
    faults = FailsAt(number, number + 1)
    parts = causal.engine(layout, tokens=tokens, failpoints=faults)
    requests = [*crowd(causal, tokens=7, more=2, new=4), causal.ask("bare", tokens=9)]
    answers = answer(parts.engine, requests)
    assert len(faults.seen) > len(answers.records)
    check_answers(causal, answers, requests)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 6])
def test_leaves_at_any_time(causal: Twin, layout: LayoutName, steps: int) -> None:
    parts, answers = causal.engine(layout, tokens=12, capacity=448), Answers()
    requests = crowd(causal, tokens=6, more=3, new=5)
    for request in requests:
        parts.engine.submit(request)
    for _ in range(steps):
        answers.step(parts.engine)
    gone = {"0", "3"}
    for name in gone:
        parts.engine.abort(name)
        parts.engine.check_integrity()
    answers.run(parts.engine)
    check_answers(causal, answers, [r for r in requests if r.id not in gone])
    check_unused(parts)


@pytest.mark.parametrize("name", ["infix", "infix-embedded"])
@pytest.mark.parametrize("tokens", [64, 3])
def test_one_that_is_not_finite_fails_alone(
    causal: Twin, layout: LayoutName, name: str, tokens: int
) -> None:
    source = causal.source(ill={name})
    parts = causal.engine(layout, source=source, tokens=tokens, capacity=448)
    requests = crowd(causal, tokens=4, more=2)
    answers = answer(parts.engine, requests)
    ill = [request for request in requests if name in request.prefixes]
    assert {error_code(answers, request.id) for request in ill} == {"non_finite_output"}
    fine = [request for request in requests if request not in ill]
    check_answers(causal, answers, fine)
    check_answers(causal, answer(parts.engine, fine), fine)
    check_unused(parts)


def test_tokens_behind_it_count_as_prompt_for_penalties(causal: Twin, layout: LayoutName) -> None:
    """All real tokens do, virtual ones do not: nothing is repeated that anybody has said."""
    request = causal.ask("one", "infix-embedded", tokens=5, more=4, no_repeat_ngram_size=1, new=40)
    said = answer(causal.engine(layout).engine, [request]).tokens["one"]
    assert len(set(said)) == len(said) == 40
    assert not set(said) & {*request.input_ids, *request.decoder_ids}


@pytest.mark.parametrize("chain", [("infix",), ("infix-embedded",)])
def test_without_a_token_behind_it(
    causal: Twin, layout: LayoutName, chain: tuple[str, ...]
) -> None:
    parts = causal.engine(layout)
    fine = causal.ask("fine", *chain)
    answers = answer(parts.engine, [causal.ask("ill", *chain, more=0), fine])
    assert error_code(answers, "ill") == "invalid_request"
    check_answers(causal, answers, [fine])
    check_unused(parts)


def test_one_of_embeddings_stands_alone(causal: Twin, layout: LayoutName) -> None:
    parts = causal.engine(layout)
    chains = [("infix-embedded", "infix"), ("infix-embedded", "infix-embedded")]
    requests = [causal.ask(f"ill{n}", *chain) for n, chain in enumerate(chains)]
    fine = causal.ask("fine", "infix-embedded", "five")
    answers = answer(parts.engine, [*requests, fine])
    assert [error_code(answers, r.id) for r in requests] == ["invalid_request"] * 2
    check_answers(causal, answers, [fine])
    check_unused(parts)


def test_it_takes_positions_and_memory(causal: Twin, layout: LayoutName) -> None:
    """Up to the model's last position, infix and all, and not one more."""
    parts = causal.engine(layout)
    for name, room in (("infix", 512 - 4), ("infix-embedded", 512 - 3)):
        fits = causal.ask("fits", name, tokens=room - 4, more=2, new=3)
        more = causal.ask("more", name, tokens=room - 4, more=3, new=3)
        answers = answer(parts.engine, [fits, more])
        check_answers(causal, answers, [fits])
        assert error_code(answers, "more") == "prompt_too_long"
