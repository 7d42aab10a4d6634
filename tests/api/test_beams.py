"""Beam search over HTTP: what the engine is told, and n best as the answer."""

from __future__ import annotations

from typing import Any

import pytest
from api.conftest import MAX_ROWS, Api, error_of
from service.fakes import EOS, Script, ids

from prefixmux_server.engine.messages import BeamOutput
from prefixmux_server.engine.params import BeamParams

pytestmark = pytest.mark.anyio

BEST = BeamOutput((*ids("hi"), EOS), -0.25, "eos")
SECOND = BeamOutput(tuple(ids("hey you")), -0.5, "length")
THIRD = BeamOutput(tuple(ids("a.")), -0.75, "stop")


def finds(api: Api, *beams: BeamOutput) -> None:
    api.engine.reply = lambda _: Script((), beams[0].reason if beams else "eos", beams=beams)


async def searched(api: Api, **parameters: Any) -> dict[str, Any]:
    answer = await api.generate(input="a", parameters=parameters)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_the_best_come_first_with_their_scores(api: Api) -> None:
    finds(api, BEST, SECOND, THIRD)
    answer = await searched(api, num_beams=4, num_return=3, stop_token_ids=ids("."))
    assert answer["outputs"] == [
        {
            "index": 0,
            "text": "hi",
            "token_ids": [*ids("hi"), EOS],
            "finish_reason": "eos",
            "stop": None,
            "score": -0.25,
            "logprobs": None,
        },
        {
            "index": 1,
            "text": "hey you",
            "token_ids": ids("hey you"),
            "finish_reason": "length",
            "stop": None,
            "score": -0.5,
            "logprobs": None,
        },
        {
            "index": 2,
            "text": "a.",
            "token_ids": ids("a."),
            "finish_reason": "stop",
            "stop": ids(".")[0],
            "score": -0.75,
            "logprobs": None,
        },
    ]
    assert answer["usage"]["generated_tokens"] == 3 + len(ids("hey you")) + 2
    assert 0 <= answer["timing"]["ttft_s"] == answer["timing"]["total_s"]


async def test_what_the_engine_is_told(api: Api) -> None:
    finds(api, BEST)
    await searched(
        api,
        num_beams=5,
        length_penalty=0.8,
        early_stopping="never",
        no_repeat_ngram_size=3,
        beam_length_includes_prompt=True,
    )
    sampling = api.engine.submitted[0].sampling
    assert sampling.no_repeat_ngram_size == 3
    assert sampling.beams == BeamParams(5, 0.8, "never", 1, length_includes_prompt=True)


@pytest.mark.parametrize(("wire", "told"), [(True, "yes"), (False, "no"), (None, "no")])
async def test_early_stopping(api: Api, wire: bool | None, told: str) -> None:
    finds(api, BEST)
    await searched(api, num_beams=2, early_stopping=wire)
    beams = api.engine.submitted[0].sampling.beams
    assert beams is not None
    assert beams.early_stopping == told


async def test_one_beam_is_greedy_and_has_no_score(api: Api) -> None:
    answer = await searched(api, num_beams=1, length_penalty=2, early_stopping=True, stop=["o"])
    assert api.engine.submitted[0].sampling.beams is None
    assert (answer["outputs"][0]["text"], answer["outputs"][0]["score"]) == ("hell", None)


async def test_a_model_without_tokenizer_answers_ids(api: Api) -> None:
    api.engine.without_tokenizer()
    finds(api, BEST)
    answer = await api.generate(input=[1], parameters={"num_beams": 2})
    (output,) = answer.json()["outputs"]
    assert (output["text"], output["token_ids"]) == (None, list(BEST.token_ids))


async def test_a_search_may_find_fewer(api: Api) -> None:
    finds(api, BEST)
    answer = await searched(api, num_beams=4, num_return=4, max_new_tokens=1)
    assert [output["score"] for output in answer["outputs"]] == [-0.25]
    assert answer["usage"]["generated_tokens"] == len(BEST.token_ids)


@pytest.mark.parametrize("beams", [(), (BEST, SECOND, THIRD)])
async def test_no_beams_or_too_many_are_the_servers_fault(
    api: Api, beams: tuple[BeamOutput, ...]
) -> None:
    finds(api, *beams)
    answer = await api.generate(input="a", parameters={"num_beams": 3, "num_return": 2})
    error_of(answer, 500, "internal_error")


async def test_more_beams_than_rows_are_refused_at_once(api: Api) -> None:
    finds(api, BEST)
    await searched(api, num_beams=MAX_ROWS)
    too_many = {"num_beams": MAX_ROWS + 1}
    asked = await api.generate(input="a", parameters=too_many)
    stored = await api.client.post(
        "/prefixes", json={"task_id": "e2e", "text": "a", "parameters": too_many}
    )
    for answer in (asked, stored):
        error = error_of(answer, 422, "invalid_parameter")
        assert error["param"] == "parameters.num_beams"
        assert "--max-batch-rows" in error["message"]
    assert len(api.engine.submitted) == 1
    assert api.stored() == (0, 0)


async def test_a_search_that_read_another_prefix_is_dropped(api: Api) -> None:
    await api.put("e2e")
    api.engine.reply = lambda _: Script((), "eos", read_last=("sha256:other",), beams=(BEST,))
    answer = await api.generate(task_id="e2e", input="a", parameters={"num_beams": 2})
    error_of(answer, 500, "internal_error")
    assert "hi" not in answer.text
