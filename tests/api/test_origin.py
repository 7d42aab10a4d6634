"""What a page of another site may make a visitor's browser do: read nothing, change nothing."""

from __future__ import annotations

from typing import Any

import pytest
from api.conftest import Api, error_of
from service.fakes import native

pytestmark = pytest.mark.anyio

CROSS_SITE = [
    {"origin": "http://evil.example"},
    {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
    {"origin": "http://test:8001"},
    {"origin": "http://test.evil.example", "sec-fetch-site": "same-site"},
    {"origin": "null"},
    {"origin": ""},
    {"origin": "http://test@evil.example"},
    {"sec-fetch-site": "cross-site"},
]
SAME_ORIGIN = [
    {},
    {"origin": "http://test"},
    {"origin": "https://TEST"},
    {"origin": "http://test:80"},
    {"origin": "http://test", "sec-fetch-site": "same-origin"},
    # Behind a proxy that forwards under another Host, which the browser knows nothing of.
    {"origin": "https://api.example", "sec-fetch-site": "same-origin"},
    {"origin": "http://[::1]:8000", "host": "[::1]:8000"},
    {"sec-fetch-site": "none"},
]
CHANGES: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/generate", {"content": b'{"input": "a"}'}),
    ("POST", "/generate/batch", {"json": {"requests": [{"input": "a"}]}}),
    ("POST", "/prefixes", {"files": {"file": native(fill=2)}, "data": {"task_id": "new"}}),
    ("PUT", "/prefixes/new", {"content": native(fill=2)}),
    ("POST", "/prefixes/e2e/activate", {"json": {"version": 1}}),
    ("DELETE", "/prefixes/e2e/versions/1", {}),
    ("DELETE", "/prefixes/e2e", {}),
    ("POST", "/nothing", {}),
]


@pytest.mark.parametrize("headers", CROSS_SITE)
async def test_a_page_of_another_site_changes_nothing(api: Api, headers: dict[str, str]) -> None:
    await api.put("e2e")
    for method, path, sent in CHANGES:
        answer = await api.client.request(method, path, headers=headers, **sent)
        error_of(answer, 403, "forbidden")
    assert api.stored() == (1, 1)
    assert api.engine.submitted == []


@pytest.mark.parametrize("headers", SAME_ORIGIN)
async def test_own_pages_and_programs_are_served(api: Api, headers: dict[str, str]) -> None:
    answer = await api.client.post("/generate", json={"input": "a"}, headers=headers)
    assert answer.status_code == 200
    assert (await api.client.put("/prefixes/e2e", content=native(), headers=headers)).is_success
    assert (await api.client.delete("/prefixes/e2e", headers=headers)).status_code == 204


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:8000", "[::1]:8000", "localhost", "LOCALHOST:1", "a.localhost", "box"],
)
async def test_without_keys_the_machines_own_names_are_served(api: Api, host: str) -> None:
    assert (await api.client.get("/prefixes", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.com."]
)
async def test_without_keys_a_name_that_was_pointed_here_reaches_nothing(
    api: Api, host: str
) -> None:
    """Its page would be of the same origin."""
    headers = {"host": host, "origin": f"http://{host}", "sec-fetch-site": "same-origin"}
    for method, path, sent in [*CHANGES, ("GET", "/prefixes", {})]:
        error_of(await api.client.request(method, path, headers=headers, **sent), 403, "forbidden")
    assert (await api.client.get("/health/live", headers=headers)).status_code == 200


async def test_with_keys_any_name_is_served(api: Api) -> None:
    key = api.store.keys.create("default", frozenset({"admin"})).key
    headers = {
        "host": "api.example:443",
        "origin": "https://api.example",
        "authorization": f"Bearer {key}",
    }
    answer = await api.client.post("/generate", json={"input": "a"}, headers=headers)
    assert answer.status_code == 200


@pytest.mark.parametrize("headers", CROSS_SITE)
async def test_reading_stays_open_without_letting_the_page_see(
    api: Api, headers: dict[str, str]
) -> None:
    for method in ("GET", "HEAD"):
        answer = await api.client.request(method, "/prefixes", headers=headers)
        assert answer.status_code == 200
        assert "access-control-allow-origin" not in answer.headers
