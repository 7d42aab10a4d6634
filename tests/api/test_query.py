"""What a route's query may hold: the fields that it declares."""

from __future__ import annotations

from typing import Any

import pytest
from api.conftest import Api, error_of
from service.fakes import native

pytestmark = pytest.mark.anyio

# (method, path, what else is sent)
CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/generate", {"json": {"input": "a"}}),
    ("POST", "/generate/batch", {"json": {"requests": [{"input": "a"}]}}),
    ("POST", "/prefixes", {"files": {"file": native(fill=2)}, "data": {"task_id": "new"}}),
    ("PUT", "/prefixes/new", {"content": native(fill=2)}),
    ("GET", "/prefixes", {}),
    ("GET", "/prefixes/e2e", {}),
    ("DELETE", "/prefixes/e2e", {}),
    ("POST", "/prefixes/e2e/activate", {"json": {"version": 1}}),
    ("GET", "/prefixes/e2e/versions", {}),
    ("GET", "/prefixes/e2e/versions/1", {}),
    ("DELETE", "/prefixes/e2e/versions/1", {}),
    ("GET", "/prefixes/e2e/versions/1/file", {}),
    ("GET", "/model", {}),
    ("GET", "/steps", {}),
]


@pytest.mark.parametrize("name", ["version", "activate", "task_id", "Limit", "", "é", "x" * 500])
async def test_no_route_passes_over_a_field_it_does_not_know(
    api: Api, subtests: pytest.Subtests, name: str
) -> None:
    await api.put("e2e")
    for method, path, sent in CALLS:
        with subtests.test(method=method, path=path):
            answer = await api.client.request(method, path, params={name: "1"}, **sent)
            param = name.encode("ascii", "backslashreplace").decode()[:128] or None
            assert error_of(answer, 422, "invalid_request")["param"] == param
    assert api.stored() == (1, 1)
    assert api.engine.submitted == []


async def test_known_fields_beside_unknown_ones_do_not_help(api: Api) -> None:
    for path in ("/prefixes?limit=1&activate=false", "/steps?since=0&version=1"):
        answer = await api.client.get(path)
        assert error_of(answer, 422, "invalid_request")["param"] in ("activate", "version")


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/version", "/docs"])
async def test_probes_may_ask_in_their_own_way(api: Api, path: str) -> None:
    assert (await api.client.get(path, params={"t": "1"})).status_code == 200
