"""Streams of the real server: against its answers in one piece, over real sockets, to their end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from api.events import Event, events, joined, terminal
from api.served import Served, served, until
from service.fakes import EOS, EOS_TEXT, VOCABULARY, ids, tokenizer
from support.models import save_tiny
from support.reference import load_reference
from transformers import GPT2Config, PreTrainedTokenizerFast

POSITIONS = 2048
PROMPT = "name : Blue Spice"
LONG = {"max_new_tokens": 1500, "ignore_eos": True}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    config = GPT2Config(
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=POSITIONS,
        vocab_size=VOCABULARY,
        eos_token_id=EOS,
        bos_token_id=EOS,
    )
    save_tiny(config, folder)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer(), eos_token=EOS_TEXT)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(model, tmp_path_factory.mktemp("store") / "new") as running:
        yield running


def streamed(server: Served, **body: Any) -> list[Event]:
    answer = server.client.post("/generate", json={**body, "stream": True})
    assert answer.status_code == 200, answer.text
    return events(answer.content)


def without_times(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key not in ("id", "timing")}


@pytest.mark.parametrize(
    "parameters",
    [
        {"max_new_tokens": 30, "ignore_eos": True},
        {"max_new_tokens": 40, "temperature": 1, "seed": 3, "n": 4},
        {"max_new_tokens": 40, "temperature": 2, "seed": 4, "n": 3, "stop": ["a", "e", "!"]},
        {"max_new_tokens": 9, "logprobs": 3, "prompt_logprobs": 2, "min_p": 0.1, "seed": 1},
    ],
)
def test_a_stream_says_what_an_answer_in_one_piece_says(
    server: Served, parameters: dict[str, Any]
) -> None:
    body = {"input": PROMPT, "parameters": {"seed": 1, **parameters}}
    found, whole = streamed(server, **body), server.generate(**body)
    answer = terminal(found).data
    assert without_times(answer) == without_times(whole)
    for output in answer["outputs"]:
        assert joined(found, output["index"]) == (output["text"], output["token_ids"])
        own = [event.data for event in found[:-1] if event.data["index"] == output["index"]]
        if "logprobs" in parameters:
            assert [entry for one in own for entry in one["logprobs"]] == output["logprobs"]


def test_log_probabilities_are_the_models_own(server: Served, model: Path) -> None:
    asked = {"max_new_tokens": 6, "ignore_eos": True, "logprobs": 2, "prompt_logprobs": 0}
    answer = server.generate(input=PROMPT, parameters=asked)
    (output,) = answer["outputs"]
    tokens = [*ids(PROMPT), *output["token_ids"]]
    with torch.inference_mode():
        logits = load_reference(model)(torch.tensor([tokens])).logits[0]
    expected = torch.log_softmax(logits.float(), -1)
    assert answer["prompt_logprobs"][0] is None
    told = [*answer["prompt_logprobs"][1:], *output["logprobs"]]
    assert [entry["token_id"] for entry in told] == tokens[1:]
    for place, entry in enumerate(told):
        assert entry["logprob"] == pytest.approx(
            float(expected[place, tokens[place + 1]]), abs=1e-4
        )
    best = expected[len(ids(PROMPT)) - 1].topk(2)
    top = output["logprobs"][0]["top"]
    assert [entry["token_id"] for entry in top] == best.indices.tolist()
    assert [entry["logprob"] for entry in top] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_who_leaves_a_stream_frees_its_row(server: Served) -> None:
    before = len(server.steps())
    body = {"input": PROMPT, "parameters": LONG, "stream": True}
    with server.client.stream("POST", "/generate", json=body) as answer:
        next(answer.iter_bytes())

    def gone() -> bool:
        server.generate(input="a", parameters={"max_new_tokens": 1})
        return len(server.steps()[-1]["rows"]) == 1

    until(gone)
    rows = [row for step in server.steps()[before:] for row in step["rows"]]
    most = max(
        sum(row["request_id"] == id for row in rows) for id in {r["request_id"] for r in rows}
    )
    assert most < LONG["max_new_tokens"] / 2


@pytest.mark.long
def test_a_dead_engine_ends_a_stream_with_one_event(server: Served) -> None:
    body = {"input": PROMPT, "parameters": LONG, "stream": True}
    with server.client.stream("POST", "/generate", json=body) as answer:
        pieces = answer.iter_bytes()
        content = next(pieces)
        os.kill(server.engine_pid(), signal.SIGKILL)
        content += b"".join(pieces)
    assert terminal(events(content)).data["error"]["code"] == "engine_unavailable"
    until(lambda: server.client.get("/health/ready").status_code == 200)


def test_the_last_signal_ends_a_stream_with_one_event(server: Served) -> None:
    """The last test of this server."""
    body = {"input": PROMPT, "parameters": LONG, "stream": True}
    with server.client.stream("POST", "/generate", json=body) as answer:
        pieces = answer.iter_bytes()
        content = next(pieces)
        server.terminate()
        server.terminate()
        content += b"".join(pieces)
    last = terminal(events(content))
    assert last.name == "done" or last.data["error"]["code"] == "draining"
    assert server.status() == 0
