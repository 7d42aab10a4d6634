"""lm-eval's `local-completions` against a real server: what it finds is what /score says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api import harness
from api.served import Served, served
from api.spoken import logprobs_of, prefix, put, save_chat_model
from service.fakes import ids
from support.reference import load_reference

PREFIX = prefix(5, seed=1)
DOCS: list[dict[str, Any]] = [
    {"question": "a fine film is", "choices": ["good", "bad"], "label": 0},
    {"question": "a dull film is", "choices": ["good", "bad", "neither of both"], "label": 1},
    {"question": "x", "choices": ["y", "zz"], "label": 1},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(model, tmp_path_factory.mktemp("store") / "new") as running:
        put(running, "e2e", PREFIX)
        yield running


def score(server: Served, question: str, choices: list[str]) -> list[dict[str, Any]]:
    targets = [f" {choice}" for choice in choices]
    body = {"task_id": "e2e", "input": question, "targets": targets}
    scores: list[dict[str, Any]] = server.client.post("/score", json=body).json()["scores"]
    return scores


def test_the_request_that_lm_eval_makes(server: Served, model: Path) -> None:
    """Prompts in token ids with what is to be scored at their end, told back with `echo`."""
    reference = load_reference(model)
    for doc in DOCS:
        question, targets = ids(doc["question"]), [ids(f" {one}") for one in doc["choices"]]
        body = {
            "model": "e2e",
            "prompt": [[*question, *target] for target in targets],
            "temperature": 0,
            "max_tokens": 1,
            "logprobs": 1,
            "seed": 1234,
            "echo": True,
        }
        choices = server.client.post("/v1/completions", json=body).json()["choices"]
        scores = score(server, doc["question"], doc["choices"])
        for target, choice, told in zip(targets, choices, scores, strict=True):
            logprobs = choice["logprobs"]["token_logprobs"][len(question) : -1]
            assert sum(logprobs) == pytest.approx(told["logprob"], abs=1e-3)
            rows = logprobs_of(reference, [*question, *target], PREFIX)[len(question) - 1 : -1]
            expected = sum(float(row[id]) for row, id in zip(rows, target, strict=True))
            assert sum(logprobs) == pytest.approx(expected, abs=1e-3)
            top = choice["logprobs"]["top_logprobs"][len(question) : -1]
            greedy = all(one == max(best.values()) for one, best in zip(logprobs, top, strict=True))
            assert greedy == told["is_greedy"]


@pytest.mark.long
@pytest.mark.parametrize(("tokenized", "batch_size"), [(True, 4), (False, 1)])
def test_lm_eval_finds_what_score_says(
    server: Served, model: Path, tmp_path: Path, tokenized: bool, batch_size: int
) -> None:
    asked = {
        "url": str(server.client.base_url).rstrip("/"),
        "model": "e2e",
        "tokenizer": str(model),
        "tokenized": tokenized,
        "batch_size": batch_size,
        "docs": DOCS,
    }
    done = subprocess.run(
        [sys.executable, harness.__file__, json.dumps(asked)],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    right = 0
    for doc, likelihoods in zip(DOCS, found["likelihoods"], strict=True):
        scores = score(server, doc["question"], doc["choices"])
        assert [one[0] for one in likelihoods] == pytest.approx(
            [told["logprob"] for told in scores], abs=1e-3
        )
        assert [one[1] for one in likelihoods] == [told["is_greedy"] for told in scores]
        best = max(scores, key=lambda told: told["logprob"])
        right += best["index"] == doc["label"]
    assert found["accuracy"] == pytest.approx(right / len(DOCS))
    for doc, text in zip(DOCS, found["texts"], strict=True):
        parameters = {"max_new_tokens": 8, "temperature": 0, "stop": ["\n"]}
        native = server.generate(task_id="e2e", input=doc["question"], parameters=parameters)
        assert text == native["outputs"][0]["text"]
