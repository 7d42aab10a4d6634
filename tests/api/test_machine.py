"""Anything in any order, for several tenants, against a model in a few dicts.

Whatever happened before: an answer names the version and the digest that its request was admitted
with, nobody sees another tenant's things, and at the end nothing is under way.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
import structlog
from api.asgi import RawCall
from api.books import TenantBook
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from service.fakes import FakeEngine, native

from prefixmux_server.api.app import create_app
from prefixmux_server.api.services import Services
from prefixmux_server.service.lifecycle import Lifecycle
from prefixmux_server.service.tenants.keys import BELIEVED_SECONDS, KeyService
from prefixmux_server.settings import Settings
from prefixmux_server.wiring import build_services
from prefixmux_store.store import PrefixStore

# Few of each, so that what is done at random often meets what is there.
TENANTS = ("acme", "globex")
TASKS = ("a", "b.1")
tenants = st.sampled_from(TENANTS)
tasks = st.sampled_from(TASKS)
versions = st.integers(1, 3)
fills = st.integers(1, 3)
mostly = st.sampled_from([True, True, True, False])
SHORT = {"max_new_tokens": 4}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Life:
    """One life of the server, from its start to its stop, over a store that outlives it."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self.engine, self.lifecycle = FakeEngine(), Lifecycle()
        self._root = root
        self._clock = clock
        self._stack = AsyncExitStack()

    async def start(self) -> Life:
        enter = self._stack.enter_context
        self.store = enter(PrefixStore.open(self._root))
        options = Settings(model="tiny", store=self._root)
        built = build_services(options, self.store, self.engine, self.lifecycle)
        self.services: Services = replace(built, keys=KeyService(self.store.keys, self._clock))
        enter(self.services.audit)
        enter(self.services.generation)
        await self._stack.enter_async_context(self.services.usage.running())
        self.app = create_app(self.services)
        transport = httpx2.ASGITransport(app=self.app)
        client = httpx2.AsyncClient(transport=transport, base_url="http://test")
        self.client = await self._stack.enter_async_context(client)
        return self

    async def stop(self) -> None:
        await self._stack.aclose()

    def assert_at_rest(self) -> None:
        assert (self.engine.open, self.lifecycle.accepted) == (0, 0)
        for tenant in TENANTS:
            accounts = self.services.accounts
            assert (accounts.under_way(tenant), accounts.reserved(tenant)) == (0, 0)


@dataclass
class Held:
    """A request whose client waits for more: what its answer has to name."""

    call: RawCall
    running: asyncio.Task[None]
    tenant: str
    task_id: str
    version: int
    digest: str

    def answer(self) -> dict[str, Any]:
        """The answer, or the one that ended the stream."""
        start, *parts = self.call.messages
        assert start["status"] == 200
        text = b"".join(part.get("body", b"") for part in parts).decode()
        if "event: " in text:
            last = text.strip().split("\n\n")[-1]
            assert last.startswith("event: done")
            text = last.partition("data: ")[2]
        found: dict[str, Any] = json.loads(text)
        return found


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="machine"))
        self.clock = Clock()
        self.runner = asyncio.Runner()
        self.books = {tenant: TenantBook() for tenant in TENANTS}
        self.held: list[Held] = []
        self.keys: dict[str, list[tuple[str, str]]] = {tenant: [] for tenant in TENANTS}
        self.revoked: list[str] = []
        self.life = self.run(Life(self.folder / "store", self.clock).start())
        for tenant in TENANTS:
            self._create_key(tenant)

    @initialize(first=st.permutations([1, 2, 3]))
    def stock(self, first: list[int]) -> None:
        for tenant in TENANTS:
            self.upload(tenant, TASKS[0], first[0], activate=True)
            self.upload(tenant, TASKS[0], first[1], activate=False)
        self.upload(TENANTS[0], TASKS[1], first[2], activate=True)

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    def teardown(self) -> None:
        try:
            for held in self.held:
                held.call.left.set()
            self.life.engine.gate.set()
            for held in self.held:
                self.run(asyncio.wait_for(held.running, 5))
            self.life.assert_at_rest()
            self.run(self.life.stop())
        finally:
            self.runner.close()
            shutil.rmtree(self.folder)

    def headers(self, tenant: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.keys[tenant][-1][0]}"}

    def ask(self, tenant: str, method: str, path: str, **sent: Any) -> httpx2.Response:
        asked = self.life.client.request(method, path, headers=self.headers(tenant), **sent)
        answer: httpx2.Response = self.run(asked)
        assert answer.status_code < 500, answer.text
        return answer

    def _create_key(self, tenant: str) -> None:
        made = self.life.store.keys.create(tenant, ("admin",))
        self.keys[tenant].append((made.key, made.record.id))

    # Tasks and versions

    @rule(tenant=tenants, task=tasks, fill=fills, activate=st.booleans())
    def upload(self, tenant: str, task: str, fill: int, activate: bool) -> None:
        answer = self.ask(
            tenant,
            "POST",
            "/prefixes",
            data={"task_id": task, "activate": str(activate).lower()},
            files={"file": native(fill=fill)},
        )
        stored = answer.json()
        version, new = self.books[tenant].upload(task, stored["prefix_digest"], activate=activate)
        assert (answer.status_code, stored["version"]) == (201 if new else 200, version)

    @rule(tenant=tenants, task=tasks, version=versions)
    def activate(self, tenant: str, task: str, version: int) -> None:
        sent = {"version": version}
        answer = self.ask(tenant, "POST", f"/prefixes/{task}/activate", json=sent)
        assert answer.status_code == self.books[tenant].activate(task, version)

    @rule(tenant=tenants, task=tasks, version=st.none() | versions)
    def delete(self, tenant: str, task: str, version: int | None) -> None:
        path = f"/prefixes/{task}" + ("" if version is None else f"/versions/{version}")
        answer = self.ask(tenant, "DELETE", path)
        assert answer.status_code == self.books[tenant].delete(task, version)

    @rule(tenant=tenants, task=tasks, version=st.none() | versions, pinned=mostly)
    def pin(self, tenant: str, task: str, version: int | None, pinned: bool) -> None:
        book = self.books[tenant]
        sent = {"version": version, "pinned": pinned}
        answer = self.ask(tenant, "POST", f"/prefixes/{task}/pin", json=sent)
        named = book.named(task, version)
        assert answer.status_code == (404 if named is None else 200)
        if named is not None:
            assert answer.json()["pinned"] is pinned
            (book.pinned.add if pinned else book.pinned.discard)((task, named[0]))

    @rule(tenant=tenants, task=tasks, version=versions)
    def download(self, tenant: str, task: str, version: int) -> None:
        answer = self.ask(tenant, "GET", f"/prefixes/{task}/versions/{version}/file")
        named = self.books[tenant].named(task, version)
        assert answer.status_code == (404 if named is None else 200)

    @rule(tenant=tenants, limit=st.integers(1, 3), query=st.sampled_from([None, "b", "."]))
    def list_tasks(self, tenant: str, limit: int, query: str | None) -> None:
        book, found, cursor = self.books[tenant], [], None
        while True:
            asked = {"limit": limit, "query": query, "cursor": cursor}
            params = {name: value for name, value in asked.items() if value is not None}
            page = self.ask(tenant, "GET", "/prefixes", params=params).json()
            assert len(page["items"]) <= limit
            found += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert {task["task_id"]: (task["active_version"], task["versions"]) for task in found} == {
            name: (task.active, len(task.live))
            for name, task in book.tasks.items()
            if query is None or query in name
        }
        assert [task["task_id"] for task in found] == sorted(task["task_id"] for task in found)

    @rule(tenant=tenants, task=tasks)
    def list_versions(self, tenant: str, task: str) -> None:
        book = self.books[tenant]
        answer = self.ask(tenant, "GET", f"/prefixes/{task}/versions")
        if task not in book.tasks:
            assert answer.status_code == 404
            return
        found = {item["version"]: item for item in answer.json()["items"]}
        assert {n: item["prefix_digest"] for n, item in found.items()} == book.tasks[task].live
        pinned = {(task, n) for n, item in found.items() if item["pinned"]}
        assert pinned == {pin for pin in book.pinned if pin[0] == task}

    # Generations

    @precondition(lambda self: not self.held)
    @rule(
        tenant=tenants,
        task=tasks,
        version=st.none() | versions,
        path=st.sampled_from(["/generate", "/generate/batch", "/score"]),
    )
    def generate(self, tenant: str, task: str, version: int | None, path: str) -> None:
        named = self.books[tenant].named(task, version)
        row: dict[str, Any] = {"task_id": task, "version": version, "input": "x"}
        sent = row | ({"targets": ["y"]} if path == "/score" else {"parameters": SHORT})
        body = {"requests": [sent, sent]} if path == "/generate/batch" else sent
        answer = self.ask(tenant, "POST", path, json=body)
        told = [answer.json()]
        if path == "/generate/batch":
            assert answer.status_code == 200
            told = [entry.get("response", entry) for entry in answer.json()["results"]]
            assert len(told) == 2
        for one in told:
            if named is None:
                assert one["error"]["code"] in ("task_not_found", "version_not_found")
                continue
            assert one["tenant"] == tenant
            assert (one["task_id"], one["version"], one["prefix_digest"]) == (task, *named)
            self.books[tenant].requests[task] += 1

    @rule(tenant=tenants, task=tasks, version=st.none() | versions, stream=st.booleans())
    def begin(self, tenant: str, task: str, version: int | None, stream: bool) -> None:
        """A request that stays open, until `finish` or until its client leaves."""
        named = self.books[tenant].named(task, version)
        if named is None:
            return
        body = {"task_id": task, "version": version, "input": "x", "parameters": SHORT}
        self.run(self._begin(tenant, task, named, {**body, "stream": stream}))

    async def _begin(
        self, tenant: str, task: str, named: tuple[int, str], body: dict[str, Any]
    ) -> None:
        engine = self.life.engine
        engine.gate.clear()
        engine.arrived.clear()
        headers = self.headers(tenant)
        call = RawCall(self.life.app, json.dumps(body).encode(), headers=headers)
        running = asyncio.create_task(call.run())
        await asyncio.wait_for(engine.arrived.wait(), 5)
        assert engine.submitted[-1].prefixes == (named[1],)
        self.held.append(Held(call, running, tenant, task, *named))

    @precondition(lambda self: self.held)
    @rule()
    def finish(self) -> None:
        """Everybody is answered with what they were admitted with, whatever became of it."""
        self.life.engine.gate.set()
        held, self.held = self.held, []
        for one in held:
            self.run(asyncio.wait_for(one.running, 5))
            answer = one.answer()
            assert (answer["tenant"], answer["task_id"]) == (one.tenant, one.task_id)
            assert (answer["version"], answer["prefix_digest"]) == (one.version, one.digest)
            self.books[one.tenant].requests[one.task_id] += 1

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 9))
    def leave(self, which: int) -> None:
        """A client that leaves takes its request with it, and nobody else's."""
        held = self.held.pop(which % len(self.held))
        before = self.life.engine.open
        held.call.left.set()
        self.run(asyncio.wait_for(held.running, 5))
        assert self.life.engine.open == before - 1
        self.books[held.tenant].requests[held.task_id] += 1
        if not self.held:
            self.life.engine.gate.set()

    # Keys, usage, the process

    @rule(tenant=tenants)
    def create_key(self, tenant: str) -> None:
        self._create_key(tenant)

    @rule(tenant=tenants)
    def revoke_key(self, tenant: str) -> None:
        """The newest; there is always another."""
        if len(self.keys[tenant]) < 2:
            return
        key, id = self.keys[tenant].pop()
        self.life.store.keys.revoke(id)
        self.clock.now += BELIEVED_SECONDS + 0.01
        self.revoked.append(key)

    @precondition(lambda self: self.revoked)
    @rule(which=st.integers(0, 9))
    def use_a_revoked_key(self, which: int) -> None:
        key = self.revoked[which % len(self.revoked)]
        headers = {"authorization": f"Bearer {key}"}
        answer = self.run(self.life.client.get("/prefixes", headers=headers))
        assert answer.status_code == 401

    @rule(tenant=tenants)
    def read_usage(self, tenant: str) -> None:
        book, told = self.books[tenant], self.ask(tenant, "GET", "/usage").json()
        assert told["tenant"] == tenant
        assert told["tasks"] == len(book.tasks)
        assert told["versions"] == sum(len(task.live) for task in book.tasks.values())
        assert {item["task_id"]: item["requests"] for item in told["items"]} == book.requests

    @precondition(lambda self: not self.held)
    @rule()
    def restart(self) -> None:
        """All but the pins is as it was."""
        self.life.assert_at_rest()
        self.run(self.life.stop())
        self.life = self.run(Life(self.folder / "store", self.clock).start())
        for book in self.books.values():
            book.pinned.clear()

    @invariant()
    def what_is_open_is_what_is_held(self) -> None:
        assert self.life.engine.open == self.life.lifecycle.accepted == len(self.held)
        for tenant in TENANTS:
            held = sum(one.tenant == tenant for one in self.held)
            assert self.life.services.accounts.under_way(tenant) == held

    @invariant()
    def the_engine_holds_the_pins(self) -> None:
        """As digests: versions of one content share theirs."""
        assert self.life.engine.pinned == {
            (tenant, book.tasks[task].live[version])
            for tenant, book in self.books.items()
            for task, version in book.pinned
        }


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


usual = settings(
    max_examples=20,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def test_in_any_order() -> None:
    run_state_machine_as_test(Machine, settings=usual)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_in_many_orders() -> None:
    run_state_machine_as_test(Machine, settings=settings(usual, max_examples=1000))
