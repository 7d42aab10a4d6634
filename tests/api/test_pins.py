"""Versions that are kept loaded."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from api.conftest import Api, error_of
from service.fakes import native

pytestmark = pytest.mark.anyio


async def pin(api: Api, task_id: str, **body: Any) -> httpx2.Response:
    return await api.client.post(f"/prefixes/{task_id}/pin", json={"pinned": True, **body})


async def test_the_active_version_is_pinned_and_let_go(api: Api) -> None:
    stored = await api.put("e2e")
    assert stored["pinned"] is False
    answer = await pin(api, "e2e")
    assert (answer.status_code, answer.json()) == (200, {**stored, "pinned": True})
    assert api.engine.pinned == {("default", stored["prefix_digest"])}
    shown = (await api.client.get("/prefixes/e2e/versions/1")).json()
    listed = (await api.client.get("/prefixes")).json()["items"][0]["active"]
    assert shown["pinned"] is listed["pinned"] is True
    assert (await pin(api, "e2e")).json()["pinned"] is True
    answer = await pin(api, "e2e", pinned=False)
    assert (answer.json()["pinned"], api.engine.pinned) == (False, set())
    assert (await pin(api, "e2e", pinned=False)).json()["pinned"] is False


async def test_a_pin_stays_with_its_version(api: Api) -> None:
    first = await api.put("e2e")
    await pin(api, "e2e")
    second = await api.put("e2e", native(fill=2))
    assert second["pinned"] is False
    assert api.engine.pinned == {("default", first["prefix_digest"])}
    assert (await pin(api, "e2e", version=2)).json()["version"] == 2
    await pin(api, "e2e", version=1, pinned=False)
    assert api.engine.pinned == {("default", second["prefix_digest"])}


async def test_what_is_deleted_is_let_go(api: Api) -> None:
    for fill in (1, 2, 3):
        await api.put("e2e", native(fill=fill))
        await pin(api, "e2e")
    assert len(api.engine.pinned) == 3
    await api.client.delete("/prefixes/e2e/versions/3")
    assert len(api.engine.pinned) == 3, "it is active and was not deleted"
    await api.client.delete("/prefixes/e2e/versions/1")
    assert len(api.engine.pinned) == 2
    await api.client.delete("/prefixes/e2e")
    assert api.engine.pinned == set()
    await api.put("e2e", native(fill=2))
    assert (await api.client.get("/prefixes/e2e/versions/4")).json()["pinned"] is False


async def test_a_shared_prefix_stays_for_the_last_that_pinned_it(api: Api) -> None:
    digest = (await api.put("one"))["prefix_digest"]
    await api.put("two")
    await pin(api, "one")
    await pin(api, "two")
    await pin(api, "one", pinned=False)
    assert api.engine.pinned == {("default", digest)}
    await api.client.delete("/prefixes/two")
    assert api.engine.pinned == set()


async def test_a_composition_pins_its_parts(api: Api) -> None:
    digests = {
        (await api.put(id, native(fill=n + 1)))["prefix_digest"] for n, id in enumerate("ab")
    }
    parts = [{"task_id": "a"}, {"task_id": "b"}]
    made = await api.client.post("/prefixes", json={"task_id": "both", "compose": parts})
    assert made.status_code == 201, made.text
    await pin(api, "both")
    assert {digest for _, digest in api.engine.pinned} == digests
    await pin(api, "a")
    await pin(api, "both", pinned=False)
    assert len(api.engine.pinned) == 1


BAD = [
    ({}, 422, "invalid_request"),
    ({"pinned": "yes"}, 422, "invalid_request"),
    ({"pinned": 1}, 422, "invalid_request"),
    ({"pinned": True, "version": "1"}, 422, "invalid_request"),
    ({"pinned": True, "version": 0}, 422, "invalid_request"),
    ({"pinned": True, "for": "ever"}, 422, "invalid_request"),
    ({"pinned": True, "version": 2}, 404, "version_not_found"),
]


async def test_bad_pins(api: Api) -> None:
    await api.put("e2e")
    for body, status, code in BAD:
        answer = await api.client.post("/prefixes/e2e/pin", json=body)
        error_of(answer, status, code)
    error_of(await pin(api, "missing"), 404, "task_not_found")
    assert api.engine.pinned == set()
