"""Several stored prefixes in one request, or stored as a task of their own."""

from __future__ import annotations

from typing import Any

import pytest
from api.conftest import Api, error_of
from service.fakes import CONTEXT, EOS, ids, native, native_at

from prefixmux_server.engine.messages import EngineError
from prefixmux_store.names import digest_of, joint_digest

pytestmark = pytest.mark.anyio

FIRST, SECOND = native(fill=1), native(fill=2)
INFIX = native(method="INFIX_TUNING")


async def stocked(api: Api) -> None:
    await api.put("a", FIRST)
    await api.put("b", native(fill=9))
    await api.put("b", SECOND)
    await api.put("infix", INFIX)


async def compose(api: Api, *parts: Any, **body: Any) -> Any:
    named = [{"task_id": part} if isinstance(part, str) else part for part in parts]
    return await api.client.post("/prefixes", json={"compose": named, **body})


def used(task_id: str, version: int, data: bytes) -> dict[str, Any]:
    return {"task_id": task_id, "version": version, "digest": digest_of(data), "tokens": 3}


async def test_a_request_names_its_prefixes_in_order(api: Api) -> None:
    await stocked(api)
    parts = [{"task_id": "b"}, {"task_id": "a", "version": 1}]
    answer = (await api.generate(compose=parts, input="x")).json()
    digests = (digest_of(SECOND), digest_of(FIRST))
    assert api.engine.submitted[0].prefixes == digests
    assert answer["task_id"] is answer["version"] is None
    assert answer["prefix_digest"] == joint_digest(digests)
    assert answer["prefixes"] == [used("b", 2, SECOND), used("a", 1, FIRST)]
    assert answer["usage"]["prefix_tokens"] == 6


async def test_one_part_is_that_prefix_without_its_defaults(api: Api) -> None:
    fields = {"task_id": "a", "template": "Q: {input}", "parameters": '{"top_k": 3}'}
    await api.client.post("/prefixes", data=fields, files={"file": FIRST})
    answer = (await api.generate(compose=[{"task_id": "a"}], input="x")).json()
    assert answer["prefix_digest"] == digest_of(FIRST)
    (submit,) = api.engine.submitted
    assert (submit.input_ids, submit.sampling.top_k) == (tuple(ids("x")), 0)


async def test_parts_take_their_room_together(api: Api) -> None:
    await api.put("a", native(20))
    await api.put("b", native(30))
    parts = [{"task_id": "a"}, {"task_id": "b"}]
    await api.generate(compose=parts, input="x")
    assert api.engine.submitted[0].sampling.max_new_tokens == CONTEXT - 50
    refused = await api.generate(compose=[*parts, {"task_id": "a"}], input="x")
    error_of(refused, 422, "prompt_too_long")


async def test_a_composition_is_stored_tried_and_served(api: Api) -> None:
    await stocked(api)
    api.engine.probed.clear()
    said = {"task_id": "both", "description": "two", "template": "{input}!"}
    stored = await compose(api, "b", {"task_id": "a", "version": 1}, **said)
    assert stored.status_code == 201, stored.text
    version = stored.json()
    digests = (digest_of(SECOND), digest_of(FIRST))
    assert api.engine.probed == [("default", digests, ())]
    assert (version["method"], version["prefix_tokens"]) == ("COMPOSITION", 6)
    assert (version["description"], version["template"]) == ("two", "{input}!")
    assert version["prefix_digest"] == joint_digest(digests)
    assert version["bytes"] == len(FIRST) + len(SECOND)
    method = {"method": "PREFIX_TUNING"}
    assert version["parts"] == [used("b", 2, SECOND) | method, used("a", 1, FIRST) | method]
    answer = (await api.generate(task_id="both", input="x")).json()
    assert (answer["task_id"], answer["version"]) == ("both", 1)
    assert answer["prefixes"] == [used("b", 2, SECOND), used("a", 1, FIRST)]
    assert answer["prefix_digest"] == version["prefix_digest"]
    assert api.engine.submitted[0].input_ids == tuple(ids("x!"))
    again = await compose(api, "b", "a", **said)
    assert (again.status_code, again.json()["version"]) == (200, 1)


async def test_a_composition_outlives_the_tasks_it_is_made_of(api: Api) -> None:
    await stocked(api)
    assert (await compose(api, "a", "b", task_id="both")).status_code == 201
    await api.put("b", native(fill=3))
    assert (await api.client.delete("/prefixes/a")).status_code == 204
    answer = (await api.generate(task_id="both", input="x")).json()
    assert answer["prefixes"] == [used("a", 1, FIRST), used("b", 2, SECOND)]


async def test_a_composition_of_compositions_is_all_their_parts(api: Api) -> None:
    await stocked(api)
    await compose(api, "a", "b", task_id="both")
    parts = [{"task_id": "both"}, {"task_id": "a"}]
    answer = (await api.generate(compose=parts, input="x")).json()
    assert [part["task_id"] for part in answer["prefixes"]] == ["a", "b", "a"]


async def test_residency_of_a_composition_is_that_of_its_farthest_part(api: Api) -> None:
    await stocked(api)
    await compose(api, "a", "b", task_id="both")
    await api.generate(task_id="a", input="x")
    assert (await api.client.get("/prefixes/both")).json()["active"]["residency"] == "disk"
    await api.generate(task_id="b", input="x")
    assert (await api.client.get("/prefixes/both")).json()["active"]["residency"] == "device"


async def test_a_composition_has_no_file_of_its_own(api: Api) -> None:
    await stocked(api)
    await compose(api, "a", "b", task_id="both")
    answer = await api.client.get("/prefixes/both/versions/1/file")
    assert "a version 1" in error_of(answer, 422, "invalid_request")["message"]


async def test_an_infix_may_stand_behind_a_prefix(api: Api) -> None:
    await stocked(api)
    await compose(api, "a", "infix", task_id="both")
    assert api.engine.probed[-1] == ("default", (digest_of(FIRST), digest_of(INFIX)), (EOS,))
    await api.generate(task_id="both", input="x", decoder_input="y")
    assert api.engine.submitted[0].decoder_ids == tuple(ids("y"))


async def test_two_infixes_are_refused(api: Api) -> None:
    await stocked(api)
    parts = [{"task_id": "infix"}, {"task_id": "infix"}]
    for answer in (
        await api.generate(compose=parts, input="x"),
        await compose(api, *parts, task_id="both"),
    ):
        assert error_of(answer, 422, "invalid_request")["param"] == "compose"
    assert api.engine.submitted == []


async def test_more_parts_than_allowed_whoever_holds_them(api: Api) -> None:
    await stocked(api)
    await compose(api, *["a"] * 5, task_id="five")
    parts = [{"task_id": "five"}] * 2
    for answer in (
        await api.generate(compose=parts, input="x"),
        await compose(api, *parts, task_id="ten"),
    ):
        assert error_of(answer, 422, "invalid_request")["param"] == "compose"


async def test_a_composition_that_fills_the_model_is_not_stored(api: Api) -> None:
    await api.put("long", native(CONTEXT // 2))
    answer = await compose(api, "long", "long", task_id="both")
    assert error_of(answer, 422, "invalid_prefix")["reason"] == "too_long"
    assert api.stored() == (1, 1)


async def test_a_composition_that_overflows_is_not_stored(api: Api) -> None:
    await stocked(api)
    api.engine.probe_error = EngineError("non_finite_output", "Not finite.")
    answer = await compose(api, "a", "b", task_id="both")
    assert error_of(answer, 422, "invalid_prefix")["reason"] == "non_finite"
    error_of(await api.client.get("/prefixes/both"), 404, "task_not_found")


async def test_sites_of_parts_are_summed(api: Api) -> None:
    await api.put("kv", FIRST)
    await api.put("virtual", native_at({"embeddings": 5}, method="PROMPT_TUNING"))
    stored = await compose(api, "kv", "virtual", task_id="both")
    assert stored.json()["sites"] == {"decoder": 3, "embeddings": 5}
    await api.generate(task_id="both", input="x")
    assert api.engine.submitted[0].sampling.max_new_tokens == CONTEXT - 8
