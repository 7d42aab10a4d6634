"""What `/generate` answers when all is well, and how the engine's ends become answers."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest
from api.conftest import MAX_ROWS, Api, error_of
from service.fakes import CONTEXT, EOS, READY, Script, ids, native, reply_with

from prefixmux_server.engine.front import EngineHealth
from prefixmux_server.engine.messages import EngineError
from prefixmux_store.names import digest_of

pytestmark = pytest.mark.anyio


async def answered(api: Api, **body: Any) -> dict[str, Any]:
    answer = await api.generate(**body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_the_whole_answer_of_a_task(api: Api) -> None:
    data = native()
    await api.put("e2e", data)
    answer = await answered(api, task_id="e2e", input="name", parameters={"seed": 5})
    timing = answer.pop("timing")
    assert set(timing) == {"queue_s", "prefix_load_s", "ttft_s", "total_s"}
    assert timing["queue_s"] == 0.25
    assert timing["prefix_load_s"] == 0.125
    assert 0 <= timing["ttft_s"] <= timing["total_s"]
    assert answer == {
        "id": api.engine.submitted[0].id,
        "tenant": "default",
        "task_id": "e2e",
        "version": 1,
        "prefix_digest": digest_of(data),
        "prefixes": [{"task_id": "e2e", "version": 1, "digest": digest_of(data), "tokens": 3}],
        "model": "tiny",
        "outputs": [
            {
                "index": 0,
                "text": "hello",
                "token_ids": ids("hello"),
                "finish_reason": "length",
                "stop": None,
                "score": None,
                "logprobs": None,
            }
        ],
        "prompt_logprobs": None,
        "seed": 5,
        "usage": {"prompt_tokens": 4, "prefix_tokens": 3, "generated_tokens": len(ids("hello"))},
    }


async def test_the_bare_model_has_no_prefix(api: Api) -> None:
    answer = await answered(api, input="name", task_id=None)
    assert answer["task_id"] is answer["version"] is answer["prefix_digest"] is None
    assert answer["prefixes"] == []
    assert answer["usage"]["prefix_tokens"] == 0
    assert api.engine.submitted[0].prefixes == ()


async def test_what_the_engine_is_told(api: Api) -> None:
    stored = await api.put("e2e")
    parameters = {
        "max_new_tokens": 7,
        "min_new_tokens": 2,
        "temperature": 1,
        "top_k": 3,
        "top_p": 0.5,
        "min_p": 0.25,
        "repetition_penalty": 1.5,
        "frequency_penalty": -1,
        "presence_penalty": 2,
        "seed": 2**63 - 1,
        "stop_token_ids": [1, 2],
        "ignore_eos": True,
        "no_repeat_ngram_size": 3,
        "timeout_s": 60,
    }
    await answered(api, task_id="e2e", version=1, input=[5, 6], parameters=parameters)
    (submit,) = api.engine.submitted
    assert (submit.tenant, submit.cache_domain) == ("default", "default")
    assert submit.prefixes == (stored["prefix_digest"],)
    assert submit.input_ids == (5, 6)
    assert submit.deadline is not None
    told = {**vars(submit.sampling), "stop_token_ids": list(submit.sampling.stop_token_ids)}
    others = (
        "forced_bos_token_id",
        "forced_eos_token_id",
        "beams",
        "n",
        "logprobs",
        "prompt_logprobs",
    )
    assert {key: value for key, value in told.items() if key not in others} == {
        key: value for key, value in parameters.items() if key != "timeout_s"
    }
    assert submit.decoder_ids == ()


async def test_defaults_are_greedy_and_null_is_left_out(api: Api) -> None:
    await answered(api, input="a")
    nulls = dict.fromkeys(
        ("max_new_tokens", "temperature", "top_p", "repetition_penalty", "seed", "stop", "n")
    )
    await answered(api, input="a", version=None, stream=None, parameters=nulls)
    first, second = (submit.sampling for submit in api.engine.submitted)
    assert replace(first, seed=0) == replace(second, seed=0)
    assert (first.temperature, first.top_p, first.repetition_penalty) == (0, 1, 1)
    assert first.max_new_tokens == CONTEXT


async def test_the_prefix_takes_its_positions_from_the_room(api: Api) -> None:
    await api.put("shifted", native(10))
    await api.put("unshifted", native(10, position_offset={"decoder": 0}))
    for task_id, room in (("shifted", CONTEXT - 10), ("unshifted", CONTEXT)):
        await answered(api, task_id=task_id, input="a", parameters={"max_new_tokens": room})
        more = await api.generate(
            task_id=task_id, input="a", parameters={"max_new_tokens": room + 1}
        )
        assert error_of(more, 422, "invalid_parameter")["param"] == "parameters.max_new_tokens"


async def test_a_drawn_seed_is_the_one_the_engine_got(api: Api) -> None:
    answer = await answered(api, input="a", parameters={"temperature": 1})
    assert answer["seed"] == api.engine.submitted[0].sampling.seed


async def test_eos_is_in_the_tokens_and_not_in_the_text(api: Api) -> None:
    api.engine.reply = reply_with([*ids("hi"), EOS], "eos")
    (output,) = (await answered(api, input="a"))["outputs"]
    assert output["token_ids"] == [*ids("hi"), EOS]
    assert (output["text"], output["finish_reason"], output["stop"]) == ("hi", "eos", None)


async def test_a_stop_token_is_named(api: Api) -> None:
    (stop,) = ids("i")
    api.engine.reply = lambda _: Script(((ids("h")[0],), (stop,)), "stop", stop=stop)
    (output,) = (await answered(api, input="a", parameters={"stop_token_ids": [stop]}))["outputs"]
    assert (output["finish_reason"], output["stop"]) == ("stop", stop)
    assert output["token_ids"] == ids("hi")


@pytest.mark.parametrize(
    ("stops", "text", "tokens", "stop"),
    [
        ([" w"], "hello", "hello w", " w"),
        (["lo w", "wor"], "hel", "hello w", "lo w"),
        (["o"], "hell", "hello", "o"),
        (["l"], "he", "hell", "l"),
        (["hello world"], "", "hello world", "hello world"),
    ],
)
async def test_a_stop_string_cuts_text_and_tokens(
    api: Api, stops: list[str], text: str, tokens: str, stop: str
) -> None:
    api.engine.reply = reply_with(ids("hello world, and on"))
    answer = await answered(api, input="a", parameters={"stop": stops})
    (output,) = answer["outputs"]
    assert (output["text"], output["finish_reason"], output["stop"]) == (text, "stop", stop)
    assert output["token_ids"] == ids(tokens)
    assert answer["usage"]["generated_tokens"] == len(ids(tokens))
    assert api.engine.aborted == [answer["id"]]
    assert api.engine.open == 0


async def test_tokens_past_a_stop_of_the_same_step_are_dropped(api: Api) -> None:
    api.engine.reply = lambda _: Script((tuple(ids("a.b.c")),))
    answer = await answered(api, input="a", parameters={"stop": ["."]})
    assert answer["outputs"][0]["token_ids"] == ids("a.")
    assert answer["usage"]["generated_tokens"] == 2


async def test_a_stop_string_counts_from_min_new_tokens_on(api: Api) -> None:
    api.engine.reply = reply_with(ids("a.b.c"))
    for least, text in ((2, "a"), (3, "a.b"), (5, "a.b.c")):
        parameters = {"stop": ["."], "min_new_tokens": least}
        (output,) = (await answered(api, input="a", parameters=parameters))["outputs"]
        assert output["text"] == text


async def test_a_character_split_over_tokens_is_found_as_a_stop(api: Api) -> None:
    api.engine.reply = reply_with(ids("a€b"))
    (output,) = (await answered(api, input="a", parameters={"stop": ["€"]}))["outputs"]
    assert (output["text"], output["token_ids"]) == ("a", ids("a€"))


async def test_without_a_stop_string_the_engine_ends_the_request(api: Api) -> None:
    await answered(api, input="a", parameters={"stop": ["no such text"]})
    assert api.engine.aborted == []


async def test_a_model_without_tokenizer_takes_and_gives_ids(api: Api) -> None:
    api.engine.without_tokenizer()
    (output,) = (await answered(api, input=[1, 2]))["outputs"]
    assert output["text"] is None
    refused = await api.generate(input="text")
    assert error_of(refused, 422, "tokenizer_unavailable")["param"] == "input"
    refused = await api.generate(input=[1], parameters={"stop": ["x"]})
    assert error_of(refused, 422, "tokenizer_unavailable")["param"] == "parameters.stop"


async def test_a_request_keeps_the_version_it_was_admitted_with(api: Api) -> None:
    await api.put("e2e", native(fill=1))
    api.engine.gate.clear()
    running = asyncio.create_task(api.generate(task_id="e2e", input="a"))
    await api.engine.arrived.wait()
    await api.put("e2e", native(fill=2))
    assert (await api.client.delete("/prefixes/e2e")).status_code == 204
    api.engine.gate.set()
    answer = (await running).json()
    assert (answer["version"], answer["prefix_digest"]) == (1, digest_of(native(fill=1)))


@pytest.mark.parametrize("end", ["first", "last"])
@pytest.mark.parametrize("read", [(), (digest_of(b"foreign"),), (digest_of(native()),) * 2])
async def test_an_answer_of_another_prefix_is_never_given(
    api: Api, end: str, read: tuple[str, ...]
) -> None:
    await api.put("e2e")
    steps = tuple((id,) for id in ids("hello"))
    first, last = (read, None) if end == "first" else (None, read)
    api.engine.reply = lambda _: Script(steps, read_first=first, read_last=last)
    answer = await api.generate(task_id="e2e", input="a")
    error_of(answer, 500, "internal_error")
    assert "hello" not in answer.text
    if read:
        error_of(await api.generate(input="a"), 500, "internal_error")


async def test_a_stop_string_hides_no_other_prefix(api: Api) -> None:
    await api.put("e2e")
    steps = tuple((id,) for id in ids("hello"))
    api.engine.reply = lambda _: Script(steps, read_first=(digest_of(b"foreign"),))
    answer = await api.generate(task_id="e2e", input="a", parameters={"stop": ["l"]})
    error_of(answer, 500, "internal_error")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("engine_unavailable", 503),
        ("prefix_unavailable", 503),
        ("non_finite_output", 422),
        ("deadline_exceeded", 504),
        ("internal_error", 500),
        ("a code that is not of the contract", 500),
    ],
)
async def test_errors_of_the_engine_keep_their_code(api: Api, code: str, status: int) -> None:
    api.engine.reply = lambda _: Script(((1,),), error=EngineError(code, "The engine says no."))
    error_of(await api.generate(input="a"), status, code if status != 500 else "internal_error")
    assert api.engine.open == 0


async def test_a_deadline_ends_the_request_and_asks_for_no_retry(api: Api) -> None:
    api.engine.gate.clear()
    answer = await api.generate(input="a", parameters={"timeout_s": 0.01})
    error_of(answer, 504, "deadline_exceeded")
    assert answer.headers["x-should-retry"] == "false"
    assert api.engine.open == 0


async def test_a_full_queue_says_when_to_come_back(api: Api) -> None:
    api.engine.capacity = 0
    answer = await api.generate(input="a")
    error_of(answer, 429, "overloaded")
    assert int(answer.headers["retry-after"]) >= 1


async def test_no_engine_no_answer(api: Api) -> None:
    api.engine.ready = None
    error_of(await api.generate(input="a"), 503, "engine_unavailable")
    api.engine.ready = READY
    api.engine.health = EngineHealth(False, "unresponsive")
    error_of(await api.generate(input="a"), 503, "engine_unavailable")


async def test_rows_of_a_batch_have_their_own_ends(api: Api) -> None:
    await api.put("e2e")
    rows: list[Any] = [
        {"task_id": "e2e", "input": "a"},
        {"task_id": "none", "input": "a"},
        {"input": "a", "parameters": {"top_p": 0}},
        {"input": "a", "stream": False},
        "a",
        {"input": "b", "parameters": {"seed": 3}},
    ]
    answer = await api.client.post("/generate/batch", json={"requests": rows})
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [result["status"] for result in results] == [200, 404, 422, 422, 422, 200]
    assert results[0]["response"]["task_id"] == "e2e"
    assert results[5]["response"]["seed"] == 3
    errors = [result["error"] for result in results[1:5]]
    assert [error["code"] for error in errors] == [
        "task_not_found",
        "invalid_parameter",
        "invalid_request",
        "invalid_request",
    ]
    assert [error["param"] for error in errors] == ["task_id", "parameters.top_p", "stream", None]
    assert {error["request_id"] for error in errors} == {answer.headers["x-request-id"]}
    assert all(set(error) == {"code", "message", "param", "request_id"} for error in errors)


async def test_a_batch_beyond_the_queue_is_refused_row_by_row(api: Api) -> None:
    api.engine.capacity = 2
    api.engine.gate.clear()
    call = asyncio.create_task(
        api.client.post("/generate/batch", json={"requests": [{"input": "a"}] * 256})
    )
    while api.engine.refused < 254:
        await asyncio.sleep(0)
    api.engine.gate.set()
    statuses = [result["status"] for result in (await call).json()["results"]]
    assert (statuses.count(200), statuses.count(429)) == (2, 254)


@pytest.mark.parametrize("rows", [[], [{"input": "a"}] * 257, {}, None, "a"])
async def test_a_batch_of_no_or_too_many_rows_is_refused_whole(api: Api, rows: object) -> None:
    answer = await api.client.post("/generate/batch", json={"requests": rows})
    assert error_of(answer, 422, "invalid_request")["param"] == "requests"
    assert api.engine.submitted == []


async def test_outputs_of_one_prompt(api: Api) -> None:
    others = (tuple((id,) for id in ids("b.c")),)
    api.engine.reply = lambda _: Script(tuple((id,) for id in ids("hello")), others=others)
    answer = await answered(api, input="a", parameters={"n": 2, "temperature": 1, "stop": ["."]})
    found = [(out["index"], out["text"], out["finish_reason"]) for out in answer["outputs"]]
    assert found == [(0, "hello", "length"), (1, "b", "stop")]
    assert answer["usage"]["generated_tokens"] == len(ids("hello")) + 2
    assert api.engine.aborted_outputs == [(answer["id"], 1)]
    assert (api.engine.aborted, api.engine.open) == ([], 0)


async def test_more_outputs_than_a_batch_has_rows_are_refused(api: Api) -> None:
    parameters = {"n": MAX_ROWS + 1, "temperature": 1}
    refused = await api.generate(input="a", parameters=parameters)
    assert error_of(refused, 422, "invalid_parameter")["param"] == "parameters.n"


async def test_a_version_may_store_how_many_outputs_and_what_is_told_of_them(api: Api) -> None:
    stored = {"n": 2, "temperature": 1, "logprobs": 1, "prompt_logprobs": 0}
    query = urlencode({"parameters": json.dumps(stored)})
    answer = await api.client.put(f"/prefixes/e2e?{query}", content=native())
    assert answer.status_code == 201, answer.text
    found = await answered(api, task_id="e2e", input="ab")
    assert len(found["outputs"]) == 2
    assert len(found["outputs"][1]["logprobs"][0]["top"]) == 1
    assert [entry and entry["top"] for entry in found["prompt_logprobs"]] == [None, []]
    assert len((await answered(api, task_id="e2e", input="a", parameters={"n": 1}))["outputs"]) == 1


async def test_a_batch_tells_log_probabilities_row_by_row(api: Api) -> None:
    rows = [{"input": "ab", "parameters": {"logprobs": 0}}, {"input": "ab"}]
    answer = await api.client.post("/generate/batch", json={"requests": rows})
    first, second = (row["response"]["outputs"][0] for row in answer.json()["results"])
    assert [entry["token_id"] for entry in first["logprobs"]] == first["token_ids"]
    assert second["logprobs"] is None
