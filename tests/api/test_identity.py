"""Keys: who gets in, as whom, and what everybody else is told."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx2
import pytest
from api.conftest import Api, error_of
from service.fakes import native

from prefixmux_server.errors import Unauthorized
from prefixmux_server.service.tenants.keys import BELIEVED_SECONDS, KeyService
from prefixmux_server.service.tenants.tenant import ALL_SCOPES, Tenant
from prefixmux_store.errors import StoreBusy
from prefixmux_store.keys import KeyRing, key_hash
from prefixmux_store.store import PrefixStore

pytestmark = pytest.mark.anyio

OPEN = ["/health/live", "/health/ready", "/version", "/docs", "/openapi.json"]
CLOSED = ["/model", "/prefixes", "/prefixes/e2e", "/steps", "/generate", "/", "/nothing", "/docs/"]
METHODS = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"]
MALFORMED = [
    [],
    [""],
    ["Bearer"],
    ["Bearer "],
    ["Basic {key}"],
    ["{key}"],
    ["Bearer {key} {key}"],
    ["Bearer,{key}"],
    ["Bearer\t{key}"],
    ["Bearer {key}", "Bearer {key}"],
    ["Bearer {key}", "Basic e2U6e30="],
    ["Bearer {key}x"],
    ["Bearer {short}"],
    ["Bearer {swapped}"],
    ["Bearer {id}"],
    ["Bearer {hash}"],
    ["Bearer " + "x" * 60_000],
    ["Bearer \xff"],
]


PARTS = {"compose": [{"task_id": "{}"}]}
CHAT = [{"role": "user", "content": "a"}]


class Ticking:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def key_of(api: Api, tenant: str = "default", *scopes: str) -> str:
    return api.store.keys.create(tenant, scopes or ("admin",)).key


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def stock(api: Api) -> dict[str, str]:
    """A task `e2e` of `default`, uploaded with a key: the headers that have all its scopes."""
    headers = bearer(key_of(api))
    answer = await api.client.put("/prefixes/e2e", content=native(), headers=headers)
    assert answer.status_code == 201, answer.text
    return headers


async def test_a_store_without_keys_is_open_to_everyone(api: Api) -> None:
    await api.put("e2e")
    for headers in ({}, bearer("anything"), {"authorization": "Basic nonsense"}):
        answer = await api.client.get("/prefixes/e2e", headers=headers)
        assert answer.status_code == 200


@pytest.mark.parametrize("method", METHODS)
async def test_without_a_key_only_open_paths_answer(api: Api, method: str) -> None:
    key_of(api)
    for path in CLOSED:
        refused = await api.client.request(method, path)
        assert refused.status_code == 401, (method, path)
        assert refused.headers["www-authenticate"] == "Bearer"
    for path in OPEN:
        assert (await api.client.request(method, path)).status_code in (200, 405)


async def test_refusals_below_v1_are_openais(api: Api) -> None:
    key_of(api)
    for path in ("/v1/models", "/v1/nothing"):
        answer = await api.client.get(path)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        error = answer.json()["error"]
        assert (error["code"], bool(error["type"])) == ("unauthorized", True)


async def test_the_body_of_a_refusal_is_not_read(api: Api) -> None:
    key_of(api)

    async def body() -> AsyncIterator[bytes]:
        read.append(True)
        yield b""

    read: list[bool] = []
    error_of(await api.client.put("/prefixes/e2e", content=body()), 401, "unauthorized")
    assert not read


async def test_every_key_that_is_not_good_is_told_the_same(api: Api) -> None:
    made = api.store.keys.create("default", ("admin",))
    revoked = api.store.keys.create("default", ("admin",))
    api.store.keys.revoke(revoked.record.id)
    named = {
        "key": made.key,
        "short": made.key[:-1],
        "swapped": made.key.swapcase(),
        "id": made.record.id,
        "hash": "0" * 64,
    }
    told = set()
    for sent in [*MALFORMED, [f"Bearer {revoked.key}"]]:
        headers = [(b"authorization", text.format(**named).encode("latin-1")) for text in sent]
        headers.append((b"x-request-id", b"same"))
        answer = await api.client.get("/model", headers=headers)
        error_of(answer, 401, "unauthorized")
        told.add((answer.content, tuple(answer.headers.multi_items())))
    assert len(told) == 1


async def test_nobody_gets_in_while_the_store_fails(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither as a tenant nor, where no key was needed so far, as everyone."""

    def busy(*_: Any) -> None:
        raise StoreBusy

    key = key_of(api)
    monkeypatch.setattr(KeyRing, "required", busy)
    monkeypatch.setattr(KeyRing, "find", busy)
    for headers in ({}, bearer(key), bearer("bad")):
        for path in ("/prefixes", "/nothing"):
            error_of(await api.client.get(path, headers=headers), 503, "prefix_unavailable")
    assert (await api.client.get("/health/live")).status_code == 200


@pytest.mark.parametrize("text", ["Bearer {}", "bearer {}", "BEARER   {}", "Bearer {}  "])
async def test_a_good_key_gets_in(api: Api, text: str) -> None:
    key = key_of(api)
    headers = {"authorization": text.format(key)}
    assert (await api.client.get("/model", headers=headers)).status_code == 200


def test_a_new_key_counts_within_a_second(store: PrefixStore) -> None:
    clock = Ticking()
    service = KeyService(store.keys, clock)
    assert service.tenant_of(None) == Tenant("default", ALL_SCOPES, None)
    made = store.keys.create("acme", ("read", "generate"))
    clock.now += BELIEVED_SECONDS
    assert BELIEVED_SECONDS < 1
    expected = Tenant("acme", frozenset({"read", "generate"}), made.record.id)
    assert service.tenant_of(made.key) == expected
    with pytest.raises(Unauthorized):
        service.tenant_of(None)
    other = store.keys.create("other", ("read",))
    assert service.tenant_of(other.key).name == "other"


def test_a_revoked_key_counts_for_less_than_a_second(store: PrefixStore) -> None:
    clock = Ticking()
    service = KeyService(store.keys, clock)
    made = store.keys.create("acme", ("read",))
    assert service.tenant_of(made.key).name == "acme"
    store.keys.revoke(made.record.id)
    clock.now += BELIEVED_SECONDS
    with pytest.raises(Unauthorized):
        service.tenant_of(made.key)
    with pytest.raises(Unauthorized):
        service.tenant_of(None)


def near_misses(key: str) -> dict[str, str | None]:
    """Keys that are not good, by how much of a good one they have."""
    return {
        "none": None,
        "random": f"pmx_{secrets.token_urlsafe(32)}",
        "first": "q" + key[1:],
        "last": key[:-1] + ("A" if key[-1] != "A" else "B"),
        "short": key[:-1],
    }


def test_no_key_is_compared(store: PrefixStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is hashed and looked up once, whatever it is like and however often it comes."""
    service = KeyService(store.keys)
    key = store.keys.create("acme", ("read",)).key
    assert service.tenant_of(key).name == "acme"

    asked: list[str] = []

    def find(hashed: str) -> None:
        asked.append(hashed)

    monkeypatch.setattr(store.keys, "find", find)
    bad = near_misses(key)
    for _ in range(3):
        for text in bad.values():
            with pytest.raises(Unauthorized):
                service.tenant_of(text)
    assert asked == [key_hash(text or "") for text in bad.values()] * 3


def test_near_misses_take_the_time_of_any_bad_key(store: PrefixStore) -> None:
    """The fastest of many: what else the machine does only makes some slower."""
    service = KeyService(store.keys)
    bad = near_misses(store.keys.create("acme", ("read",)).key)
    fastest = dict.fromkeys(bad, float("inf"))
    for _ in range(1000):
        for name, text in bad.items():
            started = time.perf_counter()
            with suppress(Unauthorized):
                service.tenant_of(text)
            fastest[name] = min(fastest[name], time.perf_counter() - started)
    assert max(fastest.values()) < 1.5 * min(fastest.values())


async def test_scopes(api: Api) -> None:
    await stock(api)
    keys = {scope: key_of(api, "default", scope) for scope in sorted(ALL_SCOPES)}
    calls: list[tuple[str, str, dict[str, Any], str]] = [
        ("POST", "/generate", {"json": {"task_id": "e2e", "input": "a"}}, "generate"),
        ("GET", "/prefixes/e2e", {}, "read"),
        ("GET", "/steps", {}, "read"),
        ("PUT", "/prefixes/e2e", {"content": native()}, "write"),
        ("DELETE", "/prefixes/gone", {}, "write"),
    ]
    for method, path, sent, needed in calls:
        for scope, key in keys.items():
            answer = await api.client.request(method, path, headers=bearer(key), **sent)
            if scope in (needed, "admin"):
                assert answer.status_code in (200, 404), answer.text
            else:
                error = error_of(answer, 403, "forbidden")
                assert needed in error["message"]
    for key in keys.values():
        assert (await api.client.get("/model", headers=bearer(key))).status_code == 200


def stripped(answer: httpx2.Response) -> tuple[int, bytes, dict[str, str]]:
    """All but the request id."""
    request_id = answer.headers["x-request-id"]
    headers = {name: text for name, text in answer.headers.items() if name != "x-request-id"}
    return answer.status_code, answer.content.replace(request_id.encode(), b"-"), headers


async def test_anothers_task_is_like_one_that_does_not_exist(api: Api) -> None:
    mine = await stock(api)
    other = bearer(key_of(api, "other"))
    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/prefixes/{}", {}),
        ("GET", "/prefixes/{}/versions", {}),
        ("GET", "/prefixes/{}/versions/1", {}),
        ("GET", "/prefixes/{}/versions/2", {}),
        ("GET", "/prefixes/{}/versions/1/file", {}),
        ("POST", "/prefixes/{}/activate", {"json": {"version": 1}}),
        ("POST", "/prefixes/{}/pin", {"json": {"pinned": True}}),
        ("POST", "/prefixes/{}/pin", {"json": {"pinned": True, "version": 1}}),
        ("POST", "/prefixes", {"json": {"task_id": "new", "compose": [{"task_id": "{}"}]}}),
        ("DELETE", "/prefixes/{}/versions/1", {}),
        ("DELETE", "/prefixes/{}", {}),
        ("POST", "/generate", {"json": {"task_id": "{}", "input": "a"}}),
        ("POST", "/generate", {"json": {"task_id": "{}", "version": 1, "input": "a"}}),
        ("POST", "/generate", {"json": {"task_id": "{}", "input": "a", "stream": True}}),
        ("POST", "/generate", {"json": {"compose": [{"task_id": "{}"}], "input": "a"}}),
        ("POST", "/score", {"json": {"task_id": "{}", "input": "a", "targets": ["b"]}}),
        ("POST", "/score", {"json": {**PARTS, "input": "a", "targets": ["b"]}}),
        ("GET", "/v1/models/{}", {}),
        ("GET", "/v1/models/{}@1", {}),
        ("POST", "/v1/completions", {"json": {"model": "{}", "prompt": "a"}}),
        ("POST", "/v1/completions", {"json": {"model": "{}@1", "prompt": "a", "stream": True}}),
        ("POST", "/v1/completions", {"json": {"model": "{}", "prompt": "a", "echo": True}}),
        ("POST", "/v1/chat/completions", {"json": {"model": "{}", "messages": CHAT}}),
        ("GET", "/ui/api/prefixes/{}", {}),
        ("POST", "/ui/api/generate", {"json": {"task_id": "{}", "input": "a", "stream": True}}),
    ]
    for method, path, sent in calls:
        told = []
        for task_id in ("e2e", "nix"):
            body = {key: _filled(value, task_id) for key, value in sent.items()}
            answer = await api.client.request(method, path.format(task_id), headers=other, **body)
            assert answer.status_code == 404, (method, path, answer.text)
            told.append(stripped(answer))
        assert told[0] == told[1], (method, path)
    listing = await api.client.get("/prefixes", headers=other)
    assert listing.json()["items"] == []
    assert (await api.client.get("/prefixes/e2e", headers=mine)).status_code == 200


async def test_anothers_row_and_request_are_like_ones_that_do_not_exist(api: Api) -> None:
    mine = await stock(api)
    other = bearer(key_of(api, "other"))
    sent = {"requests": [{"task_id": "e2e", "input": "a"}, {"task_id": "nix", "input": "a"}]}
    answer = await api.client.post("/generate/batch", json=sent, headers=other)
    foreign, missing = answer.json()["results"]
    assert foreign == missing
    assert foreign["status"] == 404
    ran = await api.client.post(
        "/generate", json=sent["requests"][0], headers={**mine, "x-request-id": "named"}
    )
    assert ran.status_code == 200
    told = set()
    for id in ("named", ran.json()["id"], "nobodys"):
        answer = await api.client.get(f"/requests/{id}/timeline", headers=other)
        told.add((answer.status_code, stripped(answer)[1]))
        own = await api.client.get(f"/requests/{id}/timeline", headers=mine)
        assert own.status_code == (404 if id == "nobodys" else 200)
    assert len(told) == 1


def _filled(value: Any, task_id: str) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner, task_id) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, task_id) for inner in value]
    return value.format(task_id) if isinstance(value, str) else value


async def test_a_tenant_has_its_own_tasks(api: Api) -> None:
    keys = {name: bearer(key_of(api, name)) for name in ("acme", "other")}
    for fill, headers in enumerate(keys.values()):
        content = native(fill=fill + 1)
        answer = await api.client.put("/prefixes/e2e", content=content, headers=headers)
        assert answer.status_code == 201
    digests = set()
    for name, headers in keys.items():
        body = {"task_id": "e2e", "input": "a"}
        answer = (await api.client.post("/generate", json=body, headers=headers)).json()
        assert answer["tenant"] == name
        digests.add(answer["prefix_digest"])
    assert len(digests) == 2
