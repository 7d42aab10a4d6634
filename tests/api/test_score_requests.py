"""What /score takes and tells, over a scripted engine."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from api.conftest import Api, error_of
from service import fakes
from service.fakes import CONTEXT, EOS, MODEL, SEQ2SEQ, START, Script, ids, native

from prefixmux_server.engine.messages import EngineError

pytestmark = pytest.mark.anyio


async def score(api: Api, **body: Any) -> httpx2.Response:
    return await api.client.post("/score", json={"input": "ab", "targets": ["c"], **body})


async def test_an_answer_has_all_fields(api: Api) -> None:
    await api.put("e2e")
    answer = await score(api, task_id="e2e", targets=["cd", [3]])
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert set(told) == {
        "id",
        "tenant",
        "task_id",
        "version",
        "prefix_digest",
        "prefixes",
        "model",
        "scores",
        "usage",
        "timing",
    }
    first, second = told["scores"]
    assert (first["logprob"], second["logprob"]) == (-1.0, -0.5)
    assert first["logprobs"] == [
        {"token_id": id, "token": text, "logprob": -0.5}
        for id, text in zip(ids("cd"), "cd", strict=True)
    ]
    assert (first["text"], second["text"], second["token_ids"]) == ("cd", "$", [3])
    assert told["usage"] == {"prompt_tokens": 7, "prefix_tokens": 6, "generated_tokens": 0}
    assert set(told["timing"]) == {"queue_s", "prefix_load_s", "ttft_s", "total_s"}


async def test_rows_run_with_the_version_that_was_found(api: Api) -> None:
    await api.put("e2e", native(3, 0.5))
    await api.put("e2e", native(3, 0.25))
    await score(api, task_id="e2e", version=1, targets=["c", "d"])
    await score(api, compose=[{"task_id": "e2e"}, {"task_id": "e2e", "version": 1}])
    (one,), (two,) = (api.store.resolve("default", "e2e", version).digests for version in (1, 2))
    assert [submit.prefixes for submit in api.engine.submitted] == [(one,), (one,), (two, one)]
    assert {submit.sampling.max_new_tokens for submit in api.engine.submitted} == {0}


async def test_where_a_target_stands(api: Api) -> None:
    await score(api, targets=["c", [5]])
    await api.put("infix", native(4, method="INFIX_TUNING"))
    await score(api, task_id="infix")
    await score(api, task_id="infix", decoder_input="x")
    api.engine.serve(SEQ2SEQ)
    await score(api)
    await score(api, decoder_input="x")
    placed = [(submit.input_ids, submit.decoder_ids) for submit in api.engine.submitted]
    a, c, x = tuple(ids("ab")), tuple(ids("c")), tuple(ids("x"))
    assert placed == [
        ((*a, *c), ()),
        ((*a, 5), ()),
        (a, (EOS, *c)),
        (a, (*x, *c)),
        (a, (START, *c)),
        (a, (START, *x, *c)),
    ]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"targets": []}, "targets"),
    ({"targets": None}, "targets"),
    ({"targets": "c"}, "targets"),
    ({"targets": ["c"] * 65}, "targets"),
    ({"targets": ["c", ""]}, "targets.1"),
    ({"targets": ["c", []]}, "targets.1"),
    ({"targets": [["c"]]}, "targets.0"),
    ({"targets": ["c", [-1]]}, "targets.1"),
    ({"targets": ["c", [MODEL.vocabulary]]}, "targets.1"),
    ({"targets": ["\ud800"]}, "targets.0"),
    ({"input": ""}, "input"),
    ({"input": [MODEL.vocabulary]}, "input"),
    ({"input": None}, "input"),
    ({"decoder_input": "x"}, "decoder_input"),
    ({"version": 1}, "version"),
    ({"task_id": "e2e", "compose": [{"task_id": "e2e"}]}, "task_id"),
    ({"timeout_s": 0}, "timeout_s"),
    ({"stream": True}, "stream"),
]


async def test_what_is_refused(api: Api, subtests: pytest.Subtests) -> None:
    await api.put("e2e")
    for body, param in REFUSED:
        with subtests.test(body=str(body)[:60]):
            sent = json_of({"input": "ab", "targets": ["c"], **body})
            answer = await api.client.post("/score", content=sent)
            assert error_of(answer, 422, "invalid_request")["param"] == param
    assert api.engine.submitted == []


def json_of(body: dict[str, Any]) -> bytes:
    """Lone surrogates too."""
    return json.dumps(body).encode()


async def test_names_that_do_not_exist(api: Api) -> None:
    await api.put("e2e")
    error_of(await score(api, task_id="nothing"), 404, "task_not_found")
    error_of(await score(api, task_id="e2e", version=2), 404, "version_not_found")
    composed = await score(api, compose=[{"task_id": "e2e"}, {"task_id": "nothing"}])
    assert error_of(composed, 404, "task_not_found")["param"] == "compose.1.task_id"


async def test_what_does_not_fit(api: Api) -> None:
    long = await score(api, input=[1] * (CONTEXT + 1))
    assert error_of(long, 422, "prompt_too_long")["param"] == "input"
    api.engine.serve(SEQ2SEQ)
    many = await score(api, targets=["c", [1] * (CONTEXT + 1)])
    assert error_of(many, 422, "prompt_too_long")["param"] == "targets.1"
    assert api.engine.open == 0
    api.engine.serve(replace(MODEL, bos_token_id=None))
    await api.put("infix", native(4, method="INFIX_TUNING"))
    answer = await score(api, task_id="infix")
    assert error_of(answer, 422, "invalid_request")["param"] == "decoder_input"


async def test_without_a_tokenizer_ids_alone(api: Api) -> None:
    api.engine.without_tokenizer()
    texts = await score(api, input=[1], targets=[[2], "c"])
    assert error_of(texts, 422, "tokenizer_unavailable")["param"] == "targets.1"
    (told,) = (await score(api, input=[1], targets=[[2]])).json()["scores"]
    assert (told["text"], told["logprobs"][0]["token"], told["logprob"]) == (None, None, -0.5)


async def test_one_row_that_fails_ends_all(api: Api) -> None:
    def reply(submit: Any) -> Script:
        bad = submit.input_ids[-1] == ids("d")[0]
        error = EngineError("non_finite_output", "The output was not finite.") if bad else None
        return Script((), None if bad else "length", error=error)

    api.engine.reply = reply
    error_of(await score(api, targets=["c", "d"]), 422, "non_finite_output")
    assert (await score(api, targets=["c", "e"])).status_code == 200
    api.engine.gate.clear()
    late = await score(api, targets=["c", "e"], timeout_s=0.05)
    error_of(late, 504, "deadline_exceeded")
    assert api.engine.open == 0
    api.engine.capacity = 1
    error_of(await score(api, targets=["c", "e"]), 429, "overloaded")
    assert api.engine.open == 0


async def test_an_engine_that_scored_something_else_is_not_believed(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = fakes.likely
    monkeypatch.setattr(fakes, "likely", lambda id, top: told(id + 1, top))
    error_of(await score(api), 500, "internal_error")
