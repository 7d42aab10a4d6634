"""Log-probabilities as numbers, and as the entries that clients read."""

from __future__ import annotations

import tracemalloc

import pytest
from service.fakes import likely

from prefixmux_server.errors import InternalError
from prefixmux_server.service.generation.likely import Logprobs, PromptLogprobs


def of(*token_ids: int, top: int = 2) -> Logprobs:
    made = Logprobs(None)
    made.take(likely(id, top) for id in token_ids)
    return made


def entries(*token_ids: int, top: int = 2) -> list[dict[str, object]]:
    def one(token_id: int, logprob: float) -> dict[str, object]:
        return {"token_id": token_id, "token": None, "logprob": logprob}

    told = [likely(id, top) for id in token_ids]
    return [
        {**one(each.token_id, each.logprob), "top": [one(o.token_id, o.logprob) for o in each.top]}
        for each in told
    ]


@pytest.mark.parametrize("top", [0, 1, 20])
def test_entries_are_what_the_engine_told(top: int) -> None:
    found = of(3, 1, 2, top=top)
    assert list(found) == found.told() == entries(3, 1, 2, top=top)
    assert (len(found), found.numbers) == (3, 3 * (top + 1))
    assert [found[place] for place in (0, -1)] == entries(3, 2, top=top)
    with pytest.raises(IndexError):
        found[3]


@pytest.mark.parametrize("cut", [slice(1, 3), slice(-2, None), slice(3, 1), slice(None), slice(9)])
def test_a_piece_is_cut_as_from_a_list(cut: slice) -> None:
    assert list(of(5, 6, 7, 8)[cut]) == entries(5, 6, 7, 8)[cut]


def test_pieces_join_to_the_whole() -> None:
    whole = of(5, 6, 7, 8)
    assert Logprobs.joined([whole[:0], whole[:1], whole[1:]]) == whole
    assert Logprobs.joined([whole[1:], whole[:1]]) != whole


def test_nothing_predicts_a_prompts_first_token() -> None:
    prompt = PromptLogprobs(None)
    prompt.take([likely(4, 1)])
    assert prompt.told() == [None, *entries(4, top=1)]
    assert PromptLogprobs(None).told() == [None]


def test_an_engine_that_tells_of_another_number_is_refused() -> None:
    found = of(1, top=2)
    with pytest.raises(InternalError):
        found.take([likely(1, 3)])


def test_a_kept_number_takes_some_bytes() -> None:
    told = [likely(id % 200, 20) for id in range(500)]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        kept = Logprobs(None)
        kept.take(told)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / kept.numbers < 20
