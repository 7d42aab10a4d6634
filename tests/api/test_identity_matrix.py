"""Every route with every kind of key: what the application serves is what this table says.

A route that is not in the table fails the test, so that nobody adds one without saying who may.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import httpx2
import pytest
from api.conftest import Api
from service.fakes import native

from prefixmux_server.api.http.middleware import OPEN_PATHS
from prefixmux_server.service.tenants.tenant import ALL_SCOPES

pytestmark = pytest.mark.anyio

TASK = "e2e"
PLACES = {"task_id": TASK, "version": "1", "id": "unknown", "model": TASK, "name": "app.css"}
SPOOFED: list[dict[str, str]] = [
    {"host": "127.0.0.1"},
    {"host": "localhost/health/live?"},
    {"host": "x/version#"},
    {"host": ""},
    {"host": "evil.example", "x-forwarded-host": "localhost", "x-forwarded-for": "127.0.0.1"},
    {"x-original-url": "/health/live", "x-rewrite-url": "/health/live"},
    {"forwarded": "for=127.0.0.1;host=localhost;proto=https"},
    {"x-http-method-override": "GET"},
]


@dataclass(frozen=True)
class Access:
    """`needs`: a scope, `key` for any key, `form` for one in its form, or nothing at all. `body`:
    JSON that is not refused."""

    needs: Literal["nothing", "key", "form", "generate", "read", "write"]
    body: Any = None
    content: bytes | None = None


GENERATE = {"task_id": TASK, "input": "a"}
COMPLETE = {"model": TASK, "prompt": "a"}
CHAT = {"model": TASK, "messages": [{"role": "user", "content": "a"}]}
TABLE: dict[tuple[str, str], Access] = {
    ("GET", "/health/live"): Access("nothing"),
    ("GET", "/health/ready"): Access("nothing"),
    ("GET", "/version"): Access("nothing"),
    ("GET", "/docs"): Access("nothing"),
    ("GET", "/openapi.json"): Access("nothing"),
    ("GET", "/model"): Access("key"),
    ("GET", "/steps"): Access("read"),
    ("GET", "/requests/{id}/timeline"): Access("read"),
    ("GET", "/metrics"): Access("read"),
    ("GET", "/usage"): Access("read"),
    ("POST", "/generate"): Access("generate", GENERATE),
    ("POST", "/score"): Access("generate", {**GENERATE, "targets": ["b"]}),
    ("GET", "/v1/models"): Access("read"),
    ("GET", "/v1/models/{model}"): Access("read"),
    ("POST", "/v1/completions"): Access("generate", COMPLETE),
    ("POST", "/v1/chat/completions"): Access("generate", CHAT),
    ("POST", "/generate/batch"): Access("generate", {"requests": [GENERATE]}),
    ("POST", "/prefixes"): Access("write", {"task_id": "text", "text": "a"}),
    ("PUT", "/prefixes/{task_id}"): Access("write", content=native(fill=2)),
    ("GET", "/prefixes"): Access("read"),
    ("GET", "/prefixes/{task_id}"): Access("read"),
    ("DELETE", "/prefixes/{task_id}"): Access("write"),
    ("POST", "/prefixes/{task_id}/activate"): Access("write", {"version": 1}),
    ("POST", "/prefixes/{task_id}/pin"): Access("write", {"pinned": True}),
    ("GET", "/prefixes/{task_id}/versions"): Access("read"),
    ("GET", "/prefixes/{task_id}/versions/{version}"): Access("read"),
    ("DELETE", "/prefixes/{task_id}/versions/{version}"): Access("write"),
    ("GET", "/prefixes/{task_id}/versions/{version}/file"): Access("read"),
}
# What the page calls: the API's own routes once more.
CALLED = {
    (method, f"/ui/api{path}"): access
    for (method, path), access in TABLE.items()
    if path.startswith(("/prefixes", "/generate"))
}
TABLE |= CALLED | {
    ("GET", "/ui"): Access("read"),
    ("GET", "/ui/"): Access("key"),
    ("GET", "/ui/tasks/{task_id}"): Access("read"),
    ("GET", "/ui/playground"): Access("generate"),
    ("GET", "/ui/live"): Access("read"),
    ("GET", "/ui/api/live"): Access("read"),
    ("GET", "/ui/static/{name}"): Access("key"),
    ("POST", "/ui/sign-in"): Access("form"),
    ("POST", "/ui/sign-out"): Access("key"),
}
OPEN = {key: access for key, access in TABLE.items() if access.needs == "nothing"}
CLOSED = {key: access for key, access in TABLE.items() if access.needs not in ("nothing", "form")}

DELETING = [key for key in CLOSED if key[0] == "DELETE"]


def routes(found: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """Of an application and of everything that was included; HEAD is GET's."""
    for route in found:
        if hasattr(route, "effective_candidates"):
            yield from routes(route.effective_candidates())
        else:
            yield from ((method, route.path) for method in route.methods - {"HEAD"})


@dataclass(frozen=True)
class Keyed:
    """The application, with a key of each scope alone and one of another tenant."""

    api: Api
    keys: dict[str, str]

    def stranger(self, route: tuple[str, str]) -> str:
        """A key of another tenant, which has no task of the name that others are asked for."""
        return self.keys["writer" if route[0] == "PUT" else "other"]

    async def call(
        self, route: tuple[str, str], key: str | None, **headers: str
    ) -> httpx2.Response:
        return await self.at(route, route[1].format(**PLACES), key, **headers)

    async def at(
        self, route: tuple[str, str], path: str, key: str | None, **headers: str
    ) -> httpx2.Response:
        access = TABLE[route]
        sent = {} if key is None else {"authorization": f"Bearer {key}"}
        if access.body is not None:
            sent["content-type"] = "application/json"
        return await self.api.client.request(
            route[0],
            path,
            headers={**sent, **headers},
            **({"json": access.body} if access.body is not None else {"content": access.content}),
        )


@pytest.fixture
async def keyed(api: Api) -> Keyed:
    keys: dict[str, str] = {}
    for scope in sorted(ALL_SCOPES):
        keys[scope] = api.store.keys.create("default", (scope,)).key
    for tenant in ("other", "writer"):
        keys[tenant] = api.store.keys.create(tenant, ("admin",)).key
    for fill in (1, 3):
        headers = {"authorization": f"Bearer {keys['admin']}"}
        path = f"/prefixes/{TASK}"
        stored = await api.client.put(path, content=native(fill=fill), headers=headers)
        assert stored.status_code == 201
    return Keyed(api, keys)


def code_of(answer: httpx2.Response) -> str | None:
    return answer.json()["error"]["code"] if answer.status_code >= 400 else None


async def test_the_table_has_every_route(api: Api) -> None:
    found = set(routes(api.app.routes))
    assert found == set(TABLE)
    document = api.app.openapi()["paths"]
    documented = {(name.upper(), path) for path, item in document.items() for name in item}
    assert documented <= found
    assert {path for _, path in OPEN} == OPEN_PATHS


async def test_the_document_names_each_scope(api: Api) -> None:
    for path, item in api.app.openapi()["paths"].items():
        for name, operation in item.items():
            needs = TABLE[name.upper(), path].needs
            scopes = [] if needs == "key" else [needs]
            expected = [] if needs == "nothing" else [{"HTTPBearer": scopes}]
            assert operation.get("security", []) == expected, path


async def test_open_routes_ask_for_nothing(keyed: Keyed, subtests: pytest.Subtests) -> None:
    for route in OPEN:
        with subtests.test(route=route):
            for key in (None, "pmx_nobody", *keyed.keys.values()):
                assert (await keyed.call(route, key)).status_code == 200


async def test_closed_routes_ask_for_a_key(keyed: Keyed, subtests: pytest.Subtests) -> None:
    for route in CLOSED:
        with subtests.test(route=route):
            await asks_for_a_key(keyed, route)


async def asks_for_a_key(keyed: Keyed, route: tuple[str, str]) -> None:
    bodies = set()
    for key in (None, "pmx_nobody", keyed.keys["admin"][:-1]):
        answer = await keyed.call(route, key, **{"x-request-id": "same"})
        assert (answer.status_code, code_of(answer)) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
        bodies.add(answer.content)
    assert len(bodies) == 1
    for method in ("HEAD", "OPTIONS", "PATCH"):
        path = route[1].format(**PLACES)
        assert (await keyed.api.client.request(method, path)).status_code == 401


async def test_each_scope_alone(keyed: Keyed, subtests: pytest.Subtests) -> None:
    for route in CLOSED:
        if route not in DELETING:
            with subtests.test(route=route):
                await needs_its_scope(keyed, route)


async def test_a_scope_is_asked_for_before_a_body_is_read(
    keyed: Keyed, subtests: pytest.Subtests
) -> None:
    for route, access in CLOSED.items():
        if route[0] in ("POST", "PUT") and access.needs != "key":
            with subtests.test(route=route):
                await is_refused_unread(keyed, route)


async def is_refused_unread(keyed: Keyed, route: tuple[str, str]) -> None:
    """Whatever is wrong with the rest of the request."""
    path = route[1].format(**PLACES)
    read: list[str] = []

    async def body(kind: str) -> AsyncIterator[bytes]:
        read.append(kind)
        yield b"{bad"

    for scope in sorted(set(ALL_SCOPES) - {TABLE[route].needs, "admin"}):
        for kind in ("application/json", "multipart/form-data; boundary=x", "text/csv", ""):
            headers = {"authorization": f"Bearer {keyed.keys[scope]}", "content-type": kind}
            answer = await keyed.api.client.request(
                route[0], path, headers=headers, content=body(kind)
            )
            assert (answer.status_code, code_of(answer)) == (403, "forbidden"), answer.text
    assert read == []


@pytest.mark.parametrize("route", DELETING, ids=" ".join)
async def test_each_scope_alone_deletes(keyed: Keyed, route: tuple[str, str]) -> None:
    await needs_its_scope(keyed, route)


async def needs_its_scope(keyed: Keyed, route: tuple[str, str]) -> None:
    needs = TABLE[route].needs
    scopes: set[str] = set(ALL_SCOPES)
    enough = scopes if needs == "key" else {needs, "admin"}
    for scope in sorted(scopes - enough):
        answer = await keyed.call(route, keyed.keys[scope])
        assert (answer.status_code, code_of(answer)) == (403, "forbidden"), answer.text
    first, *others = sorted(enough)
    answer = await keyed.call(route, keyed.keys[first])
    assert code_of(answer) == ("not_found" if "{id}" in route[1] else None), answer.text
    for scope in others:
        # What the first has deleted is gone.
        answer = await keyed.call(route, keyed.keys[scope])
        assert code_of(answer) in (None, "not_found", "task_not_found", "version_not_found"), (
            answer.text
        )


async def test_another_tenant_finds_nothing(keyed: Keyed, subtests: pytest.Subtests) -> None:
    for route in CLOSED:
        with subtests.test(route=route):
            await finds_nothing(keyed, route)


async def finds_nothing(keyed: Keyed, route: tuple[str, str]) -> None:
    digests = {
        part
        for version in (1, 2)
        for part in keyed.api.store.resolve("default", TASK, version).digests
    }
    answer = await keyed.call(route, keyed.stranger(route))
    if "{task_id}" in route[1] and route[0] != "PUT":
        assert (answer.status_code, code_of(answer)) == (404, "task_not_found")
    assert not any(digest in answer.text for digest in digests)
    assert "default" not in answer.text or route[1] == "/model"
    assert keyed.api.store.get_task("default", TASK).versions == 2


async def test_no_header_opens_a_route(keyed: Keyed, subtests: pytest.Subtests) -> None:
    for route in CLOSED:
        with subtests.test(route=route):
            for headers in SPOOFED:
                assert (await keyed.call(route, None, **headers)).status_code == 401
                answer = await keyed.call(route, keyed.stranger(route), **headers)
                if "{task_id}" in route[1] and route[0] != "PUT":
                    assert code_of(answer) == "task_not_found"
                assert answer.status_code != 401


def disguised(path: str) -> Iterator[str]:
    """Ways to write a path that some layer could take for another one."""
    first = path[1]
    yield f"/%{ord(first):02x}{path[2:]}"
    yield f"/%25{ord(first):02x}{path[2:]}"
    yield f"/{path}"
    yield f"{path}/"
    yield f"/health/live/..{path}"
    yield f"/health/live/%2e%2e{path}"
    yield f"/health/live%2f..{path}"
    yield f"/health/live;{path}"
    yield f"/docs%00{path}"
    yield f"{path}?/health/live"
    yield f"{path}%3f/version"
    yield f"{path}%2f..%2fversion"
    yield path.upper()


async def test_no_way_to_write_a_path_opens_it(keyed: Keyed, subtests: pytest.Subtests) -> None:
    # Of routes that are there twice one is enough: nothing below the frame is asked.
    for route in CLOSED:
        if route not in CALLED:
            with subtests.test(route=route):
                await stays_closed(keyed, route)


async def stays_closed(keyed: Keyed, route: tuple[str, str]) -> None:
    for path in disguised(route[1].format(**PLACES)):
        answer = await keyed.at(route, path, None)
        assert answer.status_code == 401, path
        answer = await keyed.at(route, path, keyed.stranger(route))
        assert answer.status_code != 401, path
        assert f'"{TASK}"' not in answer.text or answer.status_code in (200, 201), path
    assert keyed.api.store.get_task("default", TASK).versions == 2
