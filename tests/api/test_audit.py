"""The audit file: who changed what, which prefix answered whom, and nothing else."""

from __future__ import annotations

import asyncio
import json
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from api.asgi import RawCall
from api.conftest import Api
from service.fakes import native

from prefixmux_server.errors import UsageError
from prefixmux_server.service.generation.answer import AnswerTiming
from prefixmux_server.service.generation.outcome import Outcome
from prefixmux_server.service.tenants import audit
from prefixmux_server.service.tenants.audit import AuditLog
from prefixmux_server.settings import Settings
from prefixmux_store.names import digest_of

TIMING = AnswerTiming(0.1, 0.2, 0.3, 0.4)
DIGESTS = ("sha256:" + "1" * 64,)
ENDED = Outcome(
    "id1", "asked-1", "acme", "key_1", "e2e", 3, DIGESTS, 5, 3, 2, "ok", 1000.5, 0.4, TIMING
)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def log(path: Path | None, max_bytes: int = 1 << 20, backups: int = 2) -> AuditLog:
    return AuditLog(path, max_bytes, backups, clock=lambda: 2000.25)


def test_a_request_is_one_line_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with log(path) as opened:
        opened.finished(ENDED)
        opened.finished(replace(ENDED, id="id2", timing=None, digests=(), code="cancelled"))
    first, second = lines(path)
    assert first == {
        "event": "request",
        "at": 2000.25,
        "id": "id1",
        "request_id": "asked-1",
        "tenant": "acme",
        "key_id": "key_1",
        "task_id": "e2e",
        "version": 3,
        "digests": list(DIGESTS),
        "prompt_tokens": 5,
        "prefix_tokens": 3,
        "generated_tokens": 2,
        "code": "ok",
        "started": 1000.5,
        "seconds": 0.4,
        "timing": {"queue_s": 0.1, "prefix_load_s": 0.2, "ttft_s": 0.3, "total_s": 0.4},
    }
    assert (second["code"], second["timing"], second["digests"]) == ("cancelled", None, [])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_it_goes_on_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for _ in range(3):
        with log(path) as opened:
            opened.finished(ENDED)
    assert len(lines(path)) == 3


def test_files_are_rotated_by_size_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with log(path, max_bytes=2000, backups=3) as opened:
        for number in range(100):
            opened.finished(replace(ENDED, id=str(number)))
    kept = [tmp_path / f"audit.jsonl.{number}" for number in (3, 2, 1)] + [path]
    assert sorted(tmp_path.iterdir()) == sorted(kept)
    assert all(file.stat().st_size <= 2000 for file in kept)
    ids = [int(line["id"]) for file in kept for line in lines(file)]
    assert ids == list(range(ids[0], 100))


def test_another_process_may_add_a_line_at_any_time(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with log(path, max_bytes=2000, backups=100) as opened:
        for number in range(100):
            opened.finished(replace(ENDED, id=str(number)))
            audit.append(path, "key_created", {"key_id": str(number)})
    found = [line for file in tmp_path.iterdir() for line in lines(file)]
    for event in ("request", "key_created"):
        assert sum(line["event"] == event for line in found) == 100
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in tmp_path.iterdir())


def test_none_keeps_nothing(tmp_path: Path) -> None:
    with log(None) as opened:
        opened.finished(ENDED)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught, log(tmp_path / "missing" / "audit.jsonl"):
        pass
    assert "--audit-file" in caught.value.message


def test_a_disk_that_stands_still_delays_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "MAX_WAITING", 10)
    path = tmp_path / "audit.jsonl"
    opened = log(path)
    started = time.monotonic()
    for _ in range(1000):
        opened.finished(ENDED)
    assert time.monotonic() - started < 1
    assert capsys.readouterr().out.count("lost") == 1
    with opened:
        pass
    assert len(lines(path)) == 10


def test_where_it_is_kept(tmp_path: Path) -> None:
    settings = Settings(model="m", store=tmp_path)
    assert settings.audit_path == tmp_path / "audit.jsonl"
    assert Settings(model="m", audit_file="none").audit_path is None  # type: ignore[arg-type]
    elsewhere = tmp_path / "else.jsonl"
    assert Settings(model="m", audit_file=elsewhere).audit_path == elsewhere


async def told(api: Api, count: int) -> list[dict[str, Any]]:
    """The lines, once there are so many."""
    path = api.root / "audit.jsonl"
    async with asyncio.timeout(10):
        while len(found := lines(path)) < count:
            await asyncio.sleep(0.005)
    assert len(found) == count
    return found


@pytest.mark.anyio
async def test_changes_say_who_what_and_how_it_ended(api: Api) -> None:
    made = api.store.keys.create("acme", ("admin",))
    reader = api.store.keys.create("acme", ("read",))
    headers = {"authorization": f"Bearer {made.key}"}
    one, two = native(fill=1), native(fill=2)
    for content in (one, two):
        await api.client.put("/prefixes/e2e", content=content, headers=headers)
    await api.client.put("/prefixes/e2e", content=b"rubbish", headers=headers)
    await api.client.post("/prefixes/e2e/activate", json={"version": 1}, headers=headers)
    await api.client.delete("/prefixes/e2e/versions/1", headers=headers)
    await api.client.delete("/prefixes/e2e/versions/2", headers=headers)
    other = {"authorization": f"Bearer {reader.key}"}
    await api.client.delete("/prefixes/e2e", headers=other)
    await api.client.delete("/prefixes/e2e", headers=headers)
    await api.client.get("/prefixes", headers=headers)
    *found, denied = sorted(await told(api, 8), key=lambda line: line["event"] == "denied")
    assert (denied["key_id"], denied["tenant"]) == (reader.record.id, "acme")
    assert (denied["method"], denied["route"]) == ("DELETE", "/prefixes/{task_id}")
    assert [(line["event"], line["version"], line["digests"], line["code"]) for line in found] == [
        ("upload", 1, [digest_of(one)], "ok"),
        ("upload", 2, [digest_of(two)], "ok"),
        ("upload", None, [], "invalid_prefix"),
        ("activate", 1, [digest_of(one)], "ok"),
        ("delete_version", 1, [digest_of(one)], "version_active"),
        ("delete_version", 2, [digest_of(two)], "ok"),
        ("delete_task", None, [], "ok"),
    ]
    assert {(line["tenant"], line["task_id"]) for line in found} == {("acme", "e2e")}
    keys = [line["key_id"] for line in found]
    assert keys == [made.record.id] * 7
    assert all(abs(line["at"] - time.time()) < 60 for line in found)


@pytest.mark.anyio
async def test_which_prefix_answered_a_request(api: Api) -> None:
    """By the id that the client sent, and by the answer's own."""
    await api.put("e2e", native(fill=1))
    await api.put("e2e", native(fill=2))
    names = {"x-request-id": "order-4711"}
    body = {"task_id": "e2e", "input": "a", "parameters": {"max_new_tokens": 2}}
    answer = (await api.client.post("/generate", json=body, headers=names)).json()
    await api.put("e2e", native(fill=3))
    await api.client.delete("/prefixes/e2e")
    found = await told(api, 5)
    (line,) = [line for line in found if line.get("request_id") == "order-4711"]
    assert line["id"] == answer["id"]
    assert (line["event"], line["task_id"], line["version"]) == ("request", "e2e", 2)
    assert line["digests"] == [digest_of(native(fill=2))] == [answer["prefix_digest"]]
    tokens = {key: line[key] for key in ("prompt_tokens", "prefix_tokens", "generated_tokens")}
    assert tokens == answer["usage"]
    assert (line["code"], line["timing"]) == ("ok", pytest.approx(answer["timing"], abs=0.1))


@pytest.mark.anyio
async def test_every_end_of_a_request_has_its_line(api: Api) -> None:
    reader = {"authorization": f"Bearer {api.store.keys.create('acme', ('read',)).key}"}
    maker = {"authorization": f"Bearer {api.store.keys.create('acme', ('generate',)).key}"}
    api.store.tenants.set("acme", max_running=1, max_waiting=1)
    body = {"input": "a", "parameters": {"max_new_tokens": 2}}
    rows = {"requests": [body, {**body, "task_id": "missing"}, body]}
    named = {**maker, "x-request-id": "several"}
    await api.client.post("/generate", json=body, headers=reader)
    await api.client.post("/generate", json={**body, "stream": True}, headers=maker)
    await api.client.post("/generate/batch", json=rows, headers=named)
    leaving = RawCall(api.app, json.dumps(body).encode(), headers=maker)
    api.engine.gate.clear()
    task = asyncio.create_task(leaving.run())
    async with asyncio.timeout(10):
        while not api.engine.open:
            await asyncio.sleep(0.001)
    leaving.left.set()
    await task
    denied, *found = await told(api, 6)
    assert (denied["event"], denied["route"]) == ("denied", "/generate")
    assert found[0]["code"] == "ok"
    several = {line["code"] for line in found if line["request_id"] == "several"}
    assert several == {"ok", "task_not_found", "quota_exceeded"}
    assert found[4]["code"] == "cancelled"
    assert all(line["tenant"] == "acme" for line in found)
    ran = {line["code"] for line in found if line["timing"] is not None}
    assert {line["code"] for line in found if line["digests"]} == set()
    assert "ok" in ran and not ran & {"task_not_found", "quota_exceeded"}
