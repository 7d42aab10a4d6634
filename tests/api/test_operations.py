"""Health, version, model, steps and the documents."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import pytest
from api.conftest import Api, error_of
from service.fakes import (
    CONTEXT,
    DIM,
    EOS,
    HEADS,
    LAYERS,
    MODEL,
    SEQ2SEQ,
    START,
    VOCABULARY,
)

from prefixmux_server.engine.front import EngineHealth
from prefixmux_server.errors import STATUS_OF_CODE

pytestmark = pytest.mark.anyio

SITE = {"layers": LAYERS, "kv_heads": HEADS, "k_dim": DIM, "v_dim": DIM}


async def test_health(api: Api) -> None:
    assert (await api.client.get("/health/live")).status_code == 200
    ready = await api.client.get("/health/ready")
    assert (ready.status_code, ready.json()) == (200, {"status": "ok", "reason": "ready"})
    api.engine.health = EngineHealth(False, "restarting")
    ready = await api.client.get("/health/ready")
    assert ready.status_code == 503
    assert ready.json() == {"status": "unavailable", "reason": "restarting"}
    assert (await api.client.get("/health/live")).status_code == 200


async def test_version(api: Api) -> None:
    assert (await api.client.get("/version")).json() == {"version": version("prefixmux")}


async def test_model(api: Api) -> None:
    assert (await api.client.get("/model")).json() == {
        "id": "tiny",
        "family": "causal",
        "layers": LAYERS,
        "kv_heads": HEADS,
        "head_dim": DIM,
        "hidden": HEADS * DIM,
        "vocabulary": VOCABULARY,
        "dtype": "float32",
        "device": "cpu",
        "context": CONTEXT,
        "fingerprint": "sha256:" + "0" * 64,
        "methods": list(MODEL.methods),
        "sites": {"decoder": SITE},
        "embedding_width": HEADS * DIM,
        "eos_token_ids": [EOS],
        "bos_token_id": EOS,
        "decoder_start_token_id": None,
        "forced_bos_token_id": None,
        "forced_eos_token_id": None,
    }
    api.engine.serve(replace(SEQ2SEQ, embedding_width=4))
    shown = (await api.client.get("/model")).json()
    assert shown["sites"] == {"encoder": SITE, "decoder": SITE, "cross": SITE}
    assert (shown["family"], shown["embedding_width"]) == ("seq2seq", 4)
    assert (shown["decoder_start_token_id"], shown["forced_bos_token_id"]) == (START, 5)
    api.engine.ready = None
    error_of(await api.client.get("/model"), 503, "engine_unavailable")


async def test_steps_name_this_tenants_rows_only(api: Api) -> None:
    await api.put("e2e")
    first = (await api.generate(task_id="e2e", input="a")).json()["id"]
    second = (await api.generate(input="a")).json()["id"]
    api.engine.record(first)
    api.engine.record(first, second, "of another tenant")
    everything = (await api.client.get("/steps")).json()["items"]
    assert [step["step"] for step in everything] == [1, 2]
    (last,) = (await api.client.get("/steps", params={"since": "1"})).json()["items"]
    assert set(last) == {"step", "rows", "waiting", "seconds"}
    named = [(row["request_id"], row["task_id"]) for row in last["rows"]]
    assert named == [(first, "e2e"), (second, None), (None, None)]
    assert last["rows"][2] == {
        "request_id": None,
        "task_id": None,
        "phase": "decode",
        "tokens": 1,
        "prefix_tokens": 3,
        "encoder_tokens": 0,
    }
    assert (await api.client.get("/steps", params={"since": "2"})).json() == {"items": []}


async def test_steps_come_in_pages_from_the_oldest(api: Api) -> None:
    for _ in range(120):
        api.engine.record("of another tenant")
    first = (await api.client.get("/steps")).json()["items"]
    assert [step["step"] for step in first] == list(range(1, 101))
    rest = (await api.client.get("/steps", params={"since": "100"})).json()["items"]
    assert [step["step"] for step in rest] == list(range(101, 121))
    few = (await api.client.get("/steps", params={"since": "7", "limit": "2"})).json()["items"]
    assert [step["step"] for step in few] == [8, 9]
    everything = (await api.client.get("/steps", params={"limit": "1000"})).json()["items"]
    assert everything == first + rest


BAD_STEPS = [
    {"since": "-1"},
    {"since": "x"},
    {"until": "1"},
    {"limit": "0"},
    {"limit": "1001"},
    {"limit": "x"},
]


@pytest.mark.parametrize("query", BAD_STEPS)
async def test_bad_steps_queries(api: Api, query: dict[str, str]) -> None:
    error_of(await api.client.get("/steps", params=query), 422, "invalid_request")


async def test_the_docs_need_nothing_from_elsewhere(api: Api) -> None:
    page = await api.client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "/openapi.json" in page.text
    assert not re.search(r"https?:|src=|@import", page.text)
    assert "default-src 'none'" in page.headers["content-security-policy"]


def references(document: Any) -> set[str]:
    return set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))


async def test_the_openapi_document_is_whole(api: Api) -> None:
    document = (await api.client.get("/openapi.json")).json()
    assert references(document) <= set(document["components"]["schemas"])
    assert "HTTPValidationError" not in document["components"]["schemas"]
    operations = {
        (method.upper(), path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert set(operations) == {
        ("POST", "/generate"),
        ("POST", "/generate/batch"),
        ("POST", "/prefixes"),
        ("GET", "/prefixes"),
        ("PUT", "/prefixes/{task_id}"),
        ("GET", "/prefixes/{task_id}"),
        ("DELETE", "/prefixes/{task_id}"),
        ("POST", "/prefixes/{task_id}/activate"),
        ("GET", "/prefixes/{task_id}/versions"),
        ("GET", "/prefixes/{task_id}/versions/{version}"),
        ("DELETE", "/prefixes/{task_id}/versions/{version}"),
        ("GET", "/prefixes/{task_id}/versions/{version}/file"),
        ("GET", "/health/live"),
        ("GET", "/health/ready"),
        ("GET", "/version"),
        ("GET", "/model"),
        ("GET", "/steps"),
        ("GET", "/requests/{id}/timeline"),
        ("GET", "/metrics"),
        ("POST", "/prefixes/{task_id}/pin"),
        ("GET", "/usage"),
        ("POST", "/score"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/{model}"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/chat/completions"),
    }
    statuses = {str(status) for status in STATUS_OF_CODE.values()}
    for (_, path), operation in operations.items():
        refused = statuses & set(operation["responses"])
        kinds = {references(operation["responses"][status]).pop() for status in refused}
        in_its_words = {"OpenAIErrorBody"} if path.startswith("/v1") else {"ErrorBody", "Health"}
        assert kinds <= in_its_words
    assert "$defs" not in json.dumps(document)
    posted = operations["POST", "/prefixes"]["requestBody"]["content"]
    assert set(posted) == {"multipart/form-data", "application/json"}
    recipes = posted["application/json"]["schema"]["oneOf"]
    assert [set(recipe["required"]) for recipe in recipes] == [
        {"task_id", "text"},
        {"task_id", "examples"},
        {"task_id", "compose"},
    ]
    assert all(recipe["additionalProperties"] is False for recipe in recipes)
    body = document["components"]["schemas"]["GenerateBody"]
    assert body["examples"]
    text, tokens = body["properties"]["input"]["anyOf"]
    assert (text["minLength"], tokens["minItems"]) == (1, 1)
    assert body["additionalProperties"] is False


def test_the_http_process_never_imports_torch() -> None:
    code = (
        "import sys, prefixmux_server.main;"
        "print(*(n for n in sys.modules if n.split('.')[0] in ('torch', 'transformers')))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout.strip() == ""
