"""PEFT's own answers over HTTP: its files uploaded as they are, all cases of a model in one batch.

The engine alone is held against every model; these are one of each kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from api.served import Served, served
from support.golden import NATIVE, Case, Golden, is_beam
from support.golden_engine import prefix_key
from support.native import native_file

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    return Golden(shared / "golden")


@pytest.fixture(scope="module", params=["gpt2", "bart", "t5"])
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def server(
    golden: Golden, model: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    store = tmp_path_factory.mktemp("golden") / "store"
    with served(golden.model(model), store) as running:
        for case in (*golden.cases(model), *golden.refused(model)):
            if case["adapter"] is not None:
                answer = upload(running.client, golden, case)
                assert answer.status_code in (200, 201), (case["id"], answer.text)
        yield running


def task_of(case: Case) -> str:
    return prefix_key(case).lower().replace("@", ".at-").replace("#", ".task-")


def upload(client: httpx2.Client, golden: Golden, case: Case) -> httpx2.Response:
    if case["method"] in NATIVE:
        return client.put(f"/prefixes/{task_of(case)}", content=native_file(golden.piece(case)))
    folder = golden.root / "adapters" / case["adapter"]
    form = {"task_id": task_of(case)}
    if case.get("task_id") is not None:
        form["task_index"] = str(case["task_id"])
    files = {
        "adapter_config": (folder / "adapter_config.json").read_bytes(),
        "adapter_model": (folder / "adapter_model.safetensors").read_bytes(),
    }
    return client.post("/prefixes", data=form, files=files)


def row_of(case: Case) -> dict[str, Any]:
    ids, at = case["input_ids"], case.get("infix_at", len(case["input_ids"]))
    told = dict(case["generation"])
    told.pop("do_sample", None)
    if (count := told.pop("num_return_sequences", None)) is not None:
        told["num_return"] = count
    return {
        "task_id": None if case["adapter"] is None else task_of(case),
        "input": ids[:at],
        "decoder_input": [*case.get("decoder_start_ids", ())[1:], *ids[at:]] or None,
        "parameters": {**told, "max_new_tokens": case["max_new_tokens"]},
    }


def forces(case: Case) -> bool:
    """What a model forces is its own to say, here no request's."""
    return any(name.startswith("forced") for name in case["generation"])


def test_every_case_in_one_batch(server: Served, golden: Golden, model: str) -> None:
    cases = [case for case in golden.cases(model) if not forces(case)]
    rows = [row_of(case) for case in cases]
    answer = server.client.post("/generate/batch", json={"requests": rows})
    for case, result in zip(cases, answer.json()["results"], strict=True):
        assert result["status"] == 200, (case["id"], result)
        outputs = result["response"]["outputs"]
        assert outputs[0]["finish_reason"] == case["finish_reason"], case["id"]
        assert result["response"]["usage"]["prefix_tokens"] == case["prefix_tokens"]
        if is_beam(case):
            assert [output["token_ids"] for output in outputs] == case["sequences"], case["id"]
            scores = [output["score"] for output in outputs]
            assert scores == pytest.approx(case["sequence_scores"], abs=1e-4)
        else:
            assert outputs[0]["token_ids"] == case["output_ids"], case["id"]


def test_what_peft_fails_at_is_refused_at_admission(
    server: Served, golden: Golden, model: str
) -> None:
    refused = golden.refused(model)
    if not refused:
        pytest.skip(f"PEFT fails at nothing that {model} was asked")
    for case in refused:
        answer = server.client.post("/generate", json=row_of(case))
        assert answer.status_code == 422, case["why"]
        assert answer.json()["error"]["code"] in ("invalid_parameter", "prompt_too_long")
