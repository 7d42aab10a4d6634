"""Uploads in JSON: a text, or examples, to stand before every input."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from api.conftest import MAX_BODY, MAX_PREFIX_TOKENS, MAX_ROWS, Api, error_of
from service.fakes import CONTEXT, MODEL, SEQ2SEQ, START, VOCABULARY, ids

from prefixmux_server.engine.messages import EngineError
from prefixmux_server.service.prefixes.prefixes import PrefixService
from prefixmux_store.format import parse

pytestmark = pytest.mark.anyio

PAIRS = [{"input": "hot", "output": "cold"}, {"input": "up", "output": "down"}]


async def post(api: Api, **body: Any) -> httpx2.Response:
    return await api.client.post("/prefixes", json={"task_id": "e2e", **body})


async def stored(api: Api, **body: Any) -> dict[str, Any]:
    answer = await post(api, **body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_text_is_stored_as_its_tokens(api: Api) -> None:
    version = await stored(api, text="Be brief.", description="terse", activate=False)
    assert (version["method"], version["sites"]) == ("TEXT", {"text": 8})
    assert (version["prefix_tokens"], version["description"]) == (8, "terse")
    assert version["base_fingerprint"] == MODEL.fingerprint
    assert (await api.client.get("/prefixes/e2e/versions/1")).json() == version
    task = (await api.client.get("/prefixes/e2e")).json()
    assert task["active_version"] is None
    file = parse((await api.client.get("/prefixes/e2e/versions/1/file")).content)
    assert file.meta.token_ids == tuple(ids("Be brief."))
    assert file.meta.text == "Be brief."
    assert file.meta.base.fingerprint == MODEL.fingerprint
    assert file.meta.base.vocab == VOCABULARY
    assert api.engine.probed == [("default", (version["prefix_digest"],), ())]


async def test_examples_for_a_model_without_a_tokenizer(api: Api) -> None:
    api.engine.without_tokenizer()
    answer = await post(api, examples=PAIRS)
    assert error_of(answer, 422, "tokenizer_unavailable")["param"] == "examples"


@pytest.mark.parametrize("field", ["text", "examples"])
async def test_a_text_over_the_context_names_its_field(api: Api, field: str) -> None:
    long: Any = "x" * CONTEXT if field == "text" else [{"input": "x" * CONTEXT, "output": "y"}]
    error = error_of(await post(api, **{field: long}), 422, "invalid_prefix")
    assert (error["reason"], error["param"]) == ("too_long", field)


async def test_the_same_text_is_the_same_version(api: Api) -> None:
    first = await stored(api, text="Be brief.")
    again = await post(api, text="Be brief.", activate=None, template=None)
    assert (again.status_code, again.json()["version"]) == (200, 1)
    other = await stored(api, text="Be brief. ")
    assert other["prefix_digest"] != first["prefix_digest"]


async def test_a_text_takes_positions_and_comes_with_its_defaults(api: Api) -> None:
    await stored(api, text="x" * 10, template="Q: {input}", parameters={"top_k": 2})
    await api.generate(task_id="e2e", input="a")
    (submit,) = api.engine.submitted
    assert submit.input_ids == tuple(ids("Q: a"))
    assert (submit.sampling.top_k, submit.sampling.max_new_tokens) == (2, CONTEXT - 10 - 3)


async def test_a_long_text_is_kept_as_its_tokens_alone(api: Api) -> None:
    api.engine.serve(replace(MODEL, context=None, methods=("TEXT",)))
    roomy = PrefixService(api.engine, api.store, 6000, MAX_ROWS)
    api.app.state.services = replace(api.app.state.services, prefixes=roomy)
    await stored(api, text="l" * 10_000)
    file = parse((await api.client.get("/prefixes/e2e/versions/1/file")).content)
    assert (len(file.meta.token_ids or ()), file.meta.text) == (5000, None)


async def test_examples_are_a_text_and_what_requests_continue(api: Api) -> None:
    version = await stored(api, examples=PAIRS, template="{input} -> {output};\n")
    assert version["method"] == "TEXT"
    assert (version["template"], version["parameters"]) == ("{input} ->", {"stop": [";\n"]})
    file = parse((await api.client.get("/prefixes/e2e/versions/1/file")).content)
    assert file.meta.text == "hot -> cold;\nup -> down;\n"
    await api.generate(task_id="e2e", input="big")
    assert api.engine.submitted[0].input_ids == tuple(ids("big ->"))


async def test_examples_without_a_template(api: Api) -> None:
    version = await stored(api, examples=PAIRS, parameters={"stop": ["!"], "top_k": 1})
    assert version["template"] == "{input}\n"
    assert version["parameters"] == {"stop": ["!"], "top_k": 1}


async def test_a_text_before_an_encoder(api: Api) -> None:
    api.engine.serve(SEQ2SEQ)
    version = await stored(api, text="x" * 10)
    assert api.engine.probed == [("default", (version["prefix_digest"],), (START,))]
    answer = await api.generate(task_id="e2e", input=[1] * (CONTEXT - 10))
    assert answer.status_code == 200
    assert api.engine.submitted[0].sampling.max_new_tokens == CONTEXT
    answer = await api.generate(task_id="e2e", input=[1] * (CONTEXT - 9))
    assert error_of(answer, 422, "prompt_too_long")["param"] == "input"


# (body without task_id, code, param)
BAD: list[tuple[dict[str, Any], str, str]] = [
    ({}, "invalid_request", "text"),
    ({"text": "a", "examples": PAIRS}, "invalid_request", "text"),
    ({"text": "a", "compose": [{"task_id": "e2e"}]}, "invalid_request", "text"),
    ({"text": ""}, "invalid_request", "text"),
    ({"text": None}, "invalid_request", "text"),
    ({"text": 5}, "invalid_request", "text"),
    ({"text": ["a"]}, "invalid_request", "text"),
    ({"text": [1]}, "invalid_request", "text"),
    ({"text": "a", "input": "b"}, "invalid_request", "input"),
    ({"text": "a", "task_index": 0}, "invalid_request", "task_index"),
    ({"text": "a", "activate": "true"}, "invalid_request", "activate"),
    ({"text": "a", "activate": 1}, "invalid_request", "activate"),
    ({"text": "a", "description": "b\nc"}, "invalid_request", "description"),
    ({"text": "a", "description": "x" * 1001}, "invalid_request", "description"),
    ({"text": "a", "description": 5}, "invalid_request", "description"),
    ({"text": "a", "template": "b"}, "invalid_request", "template"),
    ({"text": "a", "template": 5}, "invalid_request", "template"),
    ({"text": "a", "task_id": "A"}, "invalid_request", "task_id"),
    ({"text": "a", "task_id": None}, "invalid_request", "task_id"),
    ({"text": "a", "parameters": []}, "invalid_parameter", "parameters"),
    ({"text": "a", "parameters": {"top_k": -1}}, "invalid_parameter", "parameters.top_k"),
    ({"text": "a", "parameters": {"stop": "x"}}, "invalid_parameter", "parameters.stop"),
    ({"examples": []}, "invalid_request", "examples"),
    ({"examples": {}}, "invalid_request", "examples"),
    ({"examples": ["a"]}, "invalid_request", "examples.0"),
    ({"examples": [{"input": "a"}]}, "invalid_request", "examples.0.output"),
    ({"examples": [*PAIRS, {"input": 1, "output": "a"}]}, "invalid_request", "examples.2.input"),
    ({"examples": [{**PAIRS[0], "more": 1}]}, "invalid_request", "examples.0.more"),
    ({"examples": PAIRS, "template": "{input}"}, "invalid_request", "template"),
    ({"examples": PAIRS, "template": "{output} {input}"}, "invalid_request", "template"),
    ({"compose": []}, "invalid_request", "compose"),
    ({"compose": [{"task_id": "e2e"}] * 9}, "invalid_request", "compose"),
    ({"compose": [{"version": 1}]}, "invalid_request", "compose.0.task_id"),
    ({"compose": [{"task_id": "e2e", "version": "1"}]}, "invalid_request", "compose.0.version"),
]


async def test_bad_bodies(api: Api, subtests: pytest.Subtests) -> None:
    for body, code, param in BAD:
        with subtests.test(body=repr(body)[:80]):
            assert error_of(await post(api, **body), 422, code)["param"] == param
    for raw in (b"[]", b'"text"', b"5", b"null"):
        headers = {"content-type": "application/json"}
        answer = await api.client.post("/prefixes", content=raw, headers=headers)
        error_of(answer, 422, "invalid_request")
    assert api.stored() == (0, 0)
    assert api.engine.probed == []


async def test_parts_that_do_not_exist(api: Api) -> None:
    await stored(api, text="a")
    bad = await post(api, compose=[{"task_id": "e2e"}, {"task_id": "none"}])
    assert error_of(bad, 404, "task_not_found")["param"] == "compose.1.task_id"
    bad = await post(api, compose=[{"task_id": "e2e", "version": 2}])
    assert error_of(bad, 404, "version_not_found")["param"] == "compose.0.version"
    assert api.stored() == (1, 1)


async def test_json_is_read_strictly_and_up_to_the_limit_of_bodies(api: Api) -> None:
    headers = {"content-type": "application/json"}
    for raw in (b"", b"{", b'{"text": NaN}', b'{"text": "a", "text": "b"}', b"\xff"):
        answer = await api.client.post("/prefixes", content=raw, headers=headers)
        error_of(answer, 400, "invalid_json")
    raw = json.dumps({"task_id": "e2e", "text": "\ud800"}).encode()
    answer = await api.client.post("/prefixes", content=raw, headers=headers)
    assert error_of(answer, 422, "invalid_request")["param"] == "text"
    answer = await api.client.post("/prefixes", content=b" " * (MAX_BODY + 1), headers=headers)
    error_of(answer, 413, "body_too_large")
    gzip = {**headers, "content-encoding": "gzip"}
    answer = await api.client.post("/prefixes", content=b"{}", headers=gzip)
    error_of(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("tokens", [CONTEXT, MAX_PREFIX_TOKENS + 1, 5000])
async def test_a_text_that_is_too_long(api: Api, tokens: int) -> None:
    for body in ({"text": "x" * tokens}, {"examples": [{"input": "x" * tokens, "output": ""}]}):
        answer = await post(api, **body)
        assert error_of(answer, 422, "invalid_prefix")["reason"] == "too_long"
    assert api.stored() == (0, 0)
    assert api.engine.probed == []


async def test_words_need_a_tokenizer(api: Api) -> None:
    api.engine.without_tokenizer()
    for param, body in (("text", {"text": "a"}), ("examples", {"examples": PAIRS})):
        answer = await post(api, **body, parameters={"stop": []})
        assert error_of(answer, 422, "tokenizer_unavailable")["param"] == param
    assert api.stored() == (0, 0)


async def test_a_model_that_takes_no_text(api: Api) -> None:
    api.engine.serve(replace(MODEL, methods=("PREFIX_TUNING",)))
    error_of(await post(api, text="a"), 422, "unsupported_method")
    assert api.stored() == (0, 0)


async def test_a_text_whose_trial_overflows_is_not_kept(api: Api) -> None:
    api.engine.probe_error = EngineError("non_finite_output", "Not finite.")
    answer = await post(api, text="a")
    assert error_of(answer, 422, "invalid_prefix")["reason"] == "non_finite"
    assert api.stored() == (0, 0)
