"""Paths, ids and failures: what holds for every route."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import pytest
from api.conftest import Api, error_of
from api.test_bad_generate import BAD_TASK_IDS
from service.fakes import native

pytestmark = pytest.mark.anyio

SEGMENT_TRICKS = ["%2e%2e%2f", "..%2F..%2Fetc%2Fpasswd", "a%2Fb", "%252e", "a%00b", "%ff", "a%0Ab"]


@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/generate/", "/prefixes/", "/Prefixes", "//", "/docs/x", "/health"]
)
async def test_unknown_paths(api: Api, path: str) -> None:
    error_of(await api.client.get(path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/generate", "POST"),
        ("HEAD", "/generate", "POST"),
        ("DELETE", "/prefixes", "GET, HEAD, POST"),
        ("PATCH", "/prefixes/e2e", "DELETE, GET, HEAD, PUT"),
        ("OPTIONS", "/prefixes/e2e/versions/1", "DELETE, GET, HEAD"),
        ("POST", "/health/live", "GET, HEAD"),
        ("PUT", "/generate/batch", "POST"),
        ("DELETE", "/prefixes/e2e/versions", "GET, HEAD"),
    ],
)
async def test_wrong_methods(api: Api, method: str, path: str, allow: str) -> None:
    if method == "HEAD":
        answer = await api.client.head(path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allow)
        return
    answer = await api.client.request(method, path)
    error_of(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allow


READABLE = [
    "/prefixes",
    "/prefixes/e2e",
    "/prefixes/e2e/versions",
    "/prefixes/e2e/versions/1",
    "/prefixes/e2e/versions/1/file",
    "/prefixes/missing",
    "/nothing",
    "/model",
    "/steps",
    "/version",
    "/health/live",
    "/health/ready",
    "/docs",
    "/openapi.json",
]


@pytest.mark.parametrize("path", READABLE)
async def test_head_is_get_without_the_body(api: Api, path: str) -> None:
    await api.put("e2e")
    headers = {"x-request-id": "same"}
    get = await api.client.get(path, headers=headers)
    head = await api.client.head(path, headers=headers)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers == get.headers


async def test_an_answer_without_content_names_no_type(api: Api) -> None:
    await api.put("e2e")
    await api.put("e2e", native(fill=2))
    for path in ("/prefixes/e2e/versions/1", "/prefixes/e2e"):
        answer = await api.client.delete(path)
        assert (answer.status_code, answer.content) == (204, b"")
        assert "content-type" not in answer.headers


async def test_a_bad_task_id_in_a_path_is_a_task_that_does_not_exist(api: Api) -> None:
    segments = SEGMENT_TRICKS + [
        quote(id, safe="") for id in BAD_TASK_IDS if id not in ("", ".", "..")
    ]
    missing = (await api.client.get("/prefixes/missing")).json()["error"]
    for segment in segments:
        for method, rest in [
            ("GET", ""),
            ("DELETE", ""),
            ("GET", "/versions"),
            ("GET", "/versions/1"),
            ("GET", "/versions/1/file"),
            ("DELETE", "/versions/1"),
        ]:
            answer = await api.client.request(method, f"/prefixes/{segment}{rest}")
            error = error_of(answer, 404, "task_not_found")
            assert {**error, "request_id": ""} == {**missing, "request_id": ""}
        path = f"/prefixes/{segment}/activate"
        answer = await api.client.post(path, json={"version": 1})
        error_of(answer, 404, "task_not_found")
        answer = await api.client.put(f"/prefixes/{segment}", content=native())
        assert error_of(answer, 422, "invalid_request")["param"] == "task_id"
    assert api.stored() == (0, 0)


async def test_a_sane_request_id_is_echoed(api: Api) -> None:
    for sent in ("a", "req-1.2:3_4", "x" * 128):
        answer = await api.client.get("/version", headers={"x-request-id": sent})
        assert answer.headers["x-request-id"] == sent


async def test_other_request_ids_are_replaced(api: Api) -> None:
    for sent in ("", " ", "a b", "x" * 129, "a\tb", "{", "<script>", "-a", "\xff"):
        headers = {b"x-request-id": sent.encode("latin-1")}
        answer = await api.client.get("/version", headers=headers)
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


async def test_a_failure_tells_the_client_nothing(
    api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("secret prompt at /home/someone")

    monkeypatch.setattr(api.engine, "submit", broken)
    answer = await api.generate(input="a")
    error_of(answer, 500, "internal_error")
    assert "secret" not in answer.text
    assert "RuntimeError" not in answer.text
    logged = capsys.readouterr()
    assert "RuntimeError" in logged.out + logged.err
    assert "secret" not in logged.out + logged.err
    batch = await api.client.post("/generate/batch", json={"requests": [{"input": "a"}]})
    error_of(batch, 500, "internal_error")


async def test_prompts_and_outputs_are_not_logged(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    await api.generate(input="a very private prompt")
    await api.generate(input="a very private prompt", parameters={"stop": ["private stop"], "n": 2})
    logged = capsys.readouterr()
    assert "/generate" in logged.out + logged.err
    assert "private" not in logged.out + logged.err
    assert "hello" not in logged.out + logged.err
