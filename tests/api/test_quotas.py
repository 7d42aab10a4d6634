"""Limits of tenants on the wire: who is refused, what that says, and that nothing stays counted."""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import Any

import httpx2
import pytest
from api.asgi import RawCall
from api.conftest import MAX_ROWS, Api, error_of
from service.fakes import Script, native

from prefixmux_server.engine.messages import EngineError, Share
from prefixmux_server.service.tenants import accounts as module
from prefixmux_server.service.tenants.accounts import Accounts

pytestmark = pytest.mark.anyio

BODY = {"input": "ab", "parameters": {"max_new_tokens": 4}}
# Two of the prompt and four new ones.
COST = 6


@pytest.fixture
def accounts(api: Api, monkeypatch: pytest.MonkeyPatch) -> Accounts:
    """Of the application; limits count at once."""
    monkeypatch.setattr(module, "BELIEVED_SECONDS", 0.0)
    found: Accounts = api.app.state.services.accounts
    return found


async def running(api: Api, count: int) -> list[asyncio.Task[httpx2.Response]]:
    """Requests that wait in the engine for its gate."""
    api.engine.gate.clear()
    tasks = [asyncio.create_task(api.client.post("/generate", json=BODY)) for _ in range(count)]
    async with asyncio.timeout(10):
        while api.engine.open < count:
            await asyncio.sleep(0.001)
    return tasks


async def test_what_runs_and_waits_is_bounded(api: Api, accounts: Accounts) -> None:
    api.store.tenants.set("default", max_running=2, max_waiting=1)
    tasks = await running(api, 3)
    answer = await api.client.post("/generate", json=BODY)
    error = error_of(answer, 429, "quota_exceeded")
    assert (error["reason"], answer.headers["retry-after"]) == ("max_waiting", "1")
    assert "x-should-retry" not in answer.headers
    assert api.engine.refused == 0
    api.engine.gate.set()
    assert {(await task).status_code for task in tasks} == {200}
    assert (await api.client.post("/generate", json=BODY)).status_code == 200
    assert accounts.under_way("default") == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {**BODY, "stream": True}),
        ("/score", {"input": "a", "targets": ["b"]}),
        ("/v1/completions", {"model": "tiny", "prompt": "a"}),
        ("/v1/completions", {"model": "tiny", "prompt": "a", "stream": True}),
    ],
)
async def test_every_way_to_ask_is_counted(
    api: Api, accounts: Accounts, path: str, body: dict[str, Any]
) -> None:
    """A refusal is plain HTTP, also where tokens would have been streamed."""
    api.store.tenants.set("default", max_running=1, max_waiting=1)
    tasks = await running(api, 2)
    answer = await api.client.post(path, json=body)
    assert answer.status_code == 429, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["error"]["code"] == "quota_exceeded"
    api.engine.gate.set()
    await asyncio.gather(*tasks)
    assert accounts.under_way("default") == 0


async def test_each_row_of_a_batch_counts(api: Api, accounts: Accounts) -> None:
    api.store.tenants.set("default", max_running=1, max_waiting=2)
    answer = await api.client.post("/generate/batch", json={"requests": [BODY] * 8})
    rows = answer.json()["results"]
    assert [row["status"] for row in rows] == [200] * 3 + [429] * 5
    assert {row["error"]["code"] for row in rows[3:]} == {"quota_exceeded"}
    assert accounts.under_way("default") == 0


async def test_tenants_do_not_count_for_each_other(api: Api, accounts: Accounts) -> None:
    keys = {name: api.store.keys.create(name, ("admin",)).key for name in ("acme", "other")}
    api.store.tenants.set("acme", max_running=1, max_waiting=1)
    for name, expected in (("acme", {200, 429}), ("other", {200})):
        headers = {"authorization": f"Bearer {keys[name]}"}
        body = {"requests": [BODY] * 8}
        answer = await api.client.post("/generate/batch", json=body, headers=headers)
        assert {row["status"] for row in answer.json()["results"]} == expected


async def test_the_engine_is_told_what_a_tenant_is_due(api: Api, accounts: Accounts) -> None:
    await api.generate(**BODY)
    api.store.tenants.set("default", weight=2.5, max_running=3)
    await api.generate(**BODY)
    assert [submit.share for submit in api.engine.submitted] == [Share(), Share(2.5, 3)]


@pytest.mark.parametrize(
    ("asked", "param"),
    [({"n": 3, "temperature": 1}, "n"), ({"num_beams": 3}, "num_beams")],
)
async def test_more_rows_than_a_tenant_may_ever_run(
    api: Api, asked: dict[str, Any], param: str
) -> None:
    """Waiting would not help, so it is the request that is wrong."""
    api.store.tenants.set("default", max_running=2)
    answer = await api.generate(**{"input": "ab", "parameters": {"max_new_tokens": 4, **asked}})
    error = error_of(answer, 422, "invalid_parameter")
    assert (error["param"], "2" in error["message"]) == (f"parameters.{param}", True)
    assert api.engine.submitted == []


async def test_tokens_a_minute(api: Api, accounts: Accounts) -> None:
    """Charged with what was used: prompt, prefix and output."""
    await api.put("e2e", native(tokens=3))
    api.store.tenants.set("default", tokens_per_minute=2 * COST + 3)
    assert (await api.generate(**BODY)).status_code == 200
    assert (await api.generate(task_id="e2e", **BODY)).status_code == 200
    answer = await api.generate(**BODY)
    error = error_of(answer, 429, "quota_exceeded")
    assert error["reason"] == "tokens_per_minute"
    assert 55 <= int(answer.headers["retry-after"]) <= 60
    api.store.tenants.set("default", tokens_per_minute=3 * COST + 3)
    assert (await api.generate(**BODY)).status_code == 200


async def test_tokens_are_counted_while_they_may_still_be_used(
    api: Api, accounts: Accounts
) -> None:
    api.store.tenants.set("default", tokens_per_minute=3 * COST)
    tasks = await running(api, 3)
    assert accounts.reserved("default") == 3 * COST
    error_of(await api.generate(**BODY), 429, "quota_exceeded")
    api.engine.gate.set()
    await asyncio.gather(*tasks)
    assert accounts.reserved("default") == 0


async def test_what_was_reserved_and_not_used_is_free_again(api: Api, accounts: Accounts) -> None:
    api.store.tenants.set("default", tokens_per_minute=100)
    api.engine.reply = lambda _: Script(steps=((65,),), reason="eos")
    # Each may use 52 and uses 3: there is room for one more until 48 were used.
    for _ in range(17):
        answer = await api.generate(input="ab", parameters={"max_new_tokens": 50})
        assert answer.status_code == 200, answer.text
    answer = await api.generate(input="ab", parameters={"max_new_tokens": 50})
    error_of(answer, 429, "quota_exceeded")


async def test_a_retry_after_the_wait_that_was_told_succeeds(
    api: Api, accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    api.store.tenants.set("default", tokens_per_minute=2 * COST)
    for _ in range(5):
        for _ in range(2):
            assert (await api.generate(**BODY)).status_code == 200
            now += 7
        refused = await api.generate(**BODY)
        wait = int(refused.headers["retry-after"])
        now += wait - 1.5
        error_of(await api.generate(**BODY), 429, "quota_exceeded")
        now += 1.5


async def test_limits_hold_within_a_second(api: Api) -> None:
    assert (await api.generate(**BODY)).status_code == 200
    api.store.tenants.set("default", tokens_per_minute=1, max_running=1)
    started = time.monotonic()
    async with asyncio.timeout(10):
        while (await api.generate(**BODY)).status_code != 429:
            await asyncio.sleep(0.01)
    assert time.monotonic() - started < 1


async def test_counters_return_to_zero_whatever_happens(api: Api, accounts: Accounts) -> None:
    """Clients that leave at any moment, rows that fail, requests that are wrong."""
    drawn, engine = random.Random(3), api.engine
    api.store.tenants.set("default", max_running=4, max_waiting=40, tokens_per_minute=10**6)

    def script(_: Any) -> Script:
        error = EngineError("non_finite_output", "The model's output is not finite.")
        return Script(((65,), (66, 67)), error=error if drawn.random() < 0.3 else None)

    engine.reply = script
    bodies = [BODY, {"input": ""}, {**BODY, "task_id": "missing"}, {**BODY, "stream": True}]
    for _ in range(20):
        engine.gate.clear()
        calls = [RawCall(api.app, json.dumps(drawn.choice(bodies)).encode()) for _ in range(12)]
        tasks = [asyncio.create_task(call.run()) for call in calls]
        for call in calls:
            await asyncio.sleep(0)
            if drawn.random() < 0.4:
                call.left.set()
        await asyncio.sleep(drawn.random() * 0.01)
        engine.gate.set()
        await asyncio.gather(*tasks)
        assert (accounts.under_way("default"), accounts.reserved("default")) == (0, 0)
        assert engine.open == 0
    assert MAX_ROWS > 4


async def test_tasks_and_bytes(api: Api) -> None:
    size = len(native(fill=1))
    api.store.tenants.set("default", max_tasks=1, max_bytes=2 * size)
    await api.put("one", native(fill=1))
    answer = await api.client.put("/prefixes/two", content=native(fill=2))
    error = error_of(answer, 429, "quota_exceeded")
    assert (error["reason"], answer.headers["x-should-retry"]) == ("max_tasks", "false")
    assert int(answer.headers["retry-after"]) >= 1
    await api.put("one", native(fill=2))
    answer = await api.client.put("/prefixes/one", content=native(fill=3))
    assert error_of(answer, 507, "storage_full")["reason"] == "max_bytes"
    assert (await api.client.get("/usage")).json()["bytes"] == 2 * size
