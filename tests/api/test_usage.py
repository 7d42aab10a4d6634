"""What a tenant has used: whole at once, durable within a second, and nobody else's."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from api.conftest import Api, error_of
from service.fakes import native

from prefixmux_server.service.generation.answer import AnswerTiming
from prefixmux_server.service.generation.outcome import Outcome
from prefixmux_server.service.tenants.tenant import Tenant
from prefixmux_server.service.tenants.usage import TaskUsage, UsageMeter
from prefixmux_store.errors import StoreBusy
from prefixmux_store.store import PrefixStore
from prefixmux_store.usage import UsageEntry, UsageLedger

pytestmark = pytest.mark.anyio

TIMING = AnswerTiming(0.0, 0.0, 0.1, 0.2)
ENDED = Outcome("id", "r", "acme", None, "e2e", 1, ("d",), 5, 3, 2, "ok", 0.0, 2.0, TIMING)
ACME = Tenant("acme")


async def test_the_answer_names_everything(api: Api) -> None:
    api.store.tenants.set("acme", max_tasks=7, tokens_per_minute=1000, weight=2.0)
    headers = {"authorization": f"Bearer {api.store.keys.create('acme', ('admin',)).key}"}
    for fill in (1, 2):
        await api.client.put("/prefixes/e2e", content=native(fill=fill), headers=headers)
    answer = await api.client.get("/usage", headers=headers)
    assert answer.json() == {
        "tenant": "acme",
        "tasks": 1,
        "versions": 2,
        "bytes": len(native(fill=1)) + len(native(fill=2)),
        "limits": {
            "max_tasks": 7,
            "max_bytes": None,
            "max_running": None,
            "max_waiting": None,
            "tokens_per_minute": 1000,
            "weight": 2.0,
        },
        "items": [],
    }
    narrow = {"authorization": f"Bearer {api.store.keys.create('acme', ('generate',)).key}"}
    error_of(await api.client.get("/usage", headers=narrow), 403, "forbidden")


async def test_what_was_answered_is_what_was_used(api: Api) -> None:
    headers = {"authorization": f"Bearer {api.store.keys.create('acme', ('admin',)).key}"}
    await api.client.put("/prefixes/e2e", content=native(tokens=3), headers=headers)
    used: dict[str | None, list[int]] = {}
    for task_id in ("e2e", None, "e2e", "missing"):
        body = {"task_id": task_id, "input": "abc", "parameters": {"max_new_tokens": 2}}
        answer = await api.client.post("/generate", json=body, headers=headers)
        if answer.status_code == 200:
            counts = [1, *answer.json()["usage"].values()]
            held = used.get(task_id, [0] * 4)
            used[task_id] = [one + other for one, other in zip(held, counts, strict=True)]
    await api.client.delete("/prefixes/e2e", headers=headers)
    told = (await api.client.get("/usage", headers=headers)).json()
    assert (told["tasks"], told["versions"], told["bytes"]) == (0, 0, 0)
    names = ("task_id", "requests", "prompt_tokens", "prefix_tokens", "generated_tokens")
    expected = [dict(zip(names, (id, *used[id]), strict=True)) for id in (None, "e2e")]
    assert told["items"] == expected
    assert [item["requests"] for item in told["items"]] == [1, 2]


async def test_a_request_counts_as_soon_as_it_ended(store: PrefixStore) -> None:
    meter = UsageMeter(store)
    meter.finished(ENDED)
    meter.finished(replace(ENDED, task_id=None, prefix_tokens=0))
    meter.finished(replace(ENDED, generated_tokens=10, code="cancelled"))
    meter.finished(replace(ENDED, tenant="other"))
    expected = [TaskUsage(None, 1, 5, 0, 2), TaskUsage("e2e", 2, 10, 6, 12)]
    assert (await meter.of(ACME)).items == expected
    assert store.usage.of("acme") == ()
    await meter.write()
    assert (await meter.of(ACME)).items == expected
    assert store.usage.of("acme") == (
        UsageEntry("acme", None, 1, 5, 0, 2),
        UsageEntry("acme", "e2e", 2, 10, 6, 12),
    )
    meter.finished(ENDED)
    assert (await meter.of(ACME)).items[1] == TaskUsage("e2e", 3, 15, 9, 14)


async def test_a_request_that_never_had_a_row_is_not_used(store: PrefixStore) -> None:
    meter = UsageMeter(store)
    meter.finished(replace(ENDED, timing=None, code="quota_exceeded"))
    assert (await meter.of(ACME)).items == []


async def test_it_is_written_now_and_then_and_at_the_end(store: PrefixStore) -> None:
    meter = UsageMeter(store)
    async with meter.running(period=0.01):
        meter.finished(ENDED)
        async with asyncio.timeout(10):
            while not store.usage.of("acme"):
                await asyncio.sleep(0.005)
    async with meter.running(period=1000):
        meter.finished(ENDED)
    assert store.usage.of("acme") == (UsageEntry("acme", "e2e", 2, 10, 6, 4),)


async def test_what_the_store_does_not_take_is_kept(
    store: PrefixStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = UsageMeter(store)

    def busy(*_: Any) -> None:
        raise StoreBusy

    with monkeypatch.context() as broken:
        broken.setattr(UsageLedger, "add", busy)
        meter.finished(ENDED)
        await meter.write()
        meter.finished(ENDED)
    assert (await meter.of(ACME)).items == [TaskUsage("e2e", 2, 10, 6, 4)]
    await meter.write()
    assert store.usage.of("acme") == (UsageEntry("acme", "e2e", 2, 10, 6, 4),)


async def test_nothing_is_counted_twice_or_missed_while_it_is_written(store: PrefixStore) -> None:
    meter, ended = UsageMeter(store), 0

    async def use() -> None:
        nonlocal ended
        for _ in range(200):
            meter.finished(ENDED)
            ended += 1
            await asyncio.sleep(0)

    async def look() -> None:
        for _ in range(50):
            before = ended
            (item,) = (await meter.of(ACME)).items or [TaskUsage("e2e", 0, 0, 0, 0)]
            assert before <= item.requests <= ended

    async with meter.running(period=0.001):
        await asyncio.gather(use(), look(), look())
    (entry,) = store.usage.of("acme")
    assert entry.requests == 200
