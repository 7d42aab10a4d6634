"""From a checkpoint folder of the paper's code to its answers: converted and pushed by the command
line, asked for over HTTP, every task and beam search in one batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from api.served import Served, served
from support.original import CHECKPOINTS, Original
from typer.testing import CliRunner

from prefixmux.cli.app import build_app

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module", params=list(CHECKPOINTS))
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def server(
    original: Original, model: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("original")
    with served(original.model(model), folder / "store") as running:
        for checkpoint in CHECKPOINTS[model]:
            native = folder / f"{checkpoint}.safetensors"
            command("convert", original.folder(checkpoint), native)
            command("prefixes", "push", checkpoint, native, "--server", address(running))
        yield running


def command(*words: object) -> None:
    result = CliRunner().invoke(build_app(), [str(word) for word in words])
    assert result.exit_code == 0, result.output


def address(server: Served) -> str:
    return server.ready.removeprefix("ready ").strip()


def row_of(original: Original, checkpoint: str, case: Mapping[str, Any]) -> dict[str, Any]:
    """BART's decoder start is the model's own business; an infix is followed by `decoder_input`."""
    asked = original.asked(checkpoint, case)
    row: dict[str, Any] = {"task_id": checkpoint, "input": asked.input_ids}
    if "x" in case:
        row["decoder_input"] = asked.decoder_ids
    parameters: dict[str, Any] = {"max_new_tokens": asked.max_new_tokens}
    if (told := case.get("settings")) is not None:
        prompt = case["max_length"] - asked.max_new_tokens
        parameters |= {
            "num_beams": told["beams"],
            "length_penalty": told["length_penalty"],
            "early_stopping": told["early_stopping"],
            "no_repeat_ngram_size": told["no_repeat"],
            "min_new_tokens": max(0, told["min_length"] - prompt),
            "beam_length_includes_prompt": True,
        }
    return {**row, "parameters": parameters}


def forces(case: Mapping[str, Any]) -> bool:
    """What is forced is the model's to say, and this copy of BART forces nothing."""
    return bool(case.get("settings", {}).get("force_last"))


def test_every_checkpoint_in_one_batch(server: Served, original: Original, model: str) -> None:
    cases = [
        (checkpoint, case)
        for checkpoint in CHECKPOINTS[model]
        for beams in (False, True)
        for case in original.cases(checkpoint, beams=beams).values()
        if not forces(case)
    ]
    rows = [row_of(original, checkpoint, case) for checkpoint, case in cases]
    answer = server.client.post("/generate/batch", json={"requests": rows})
    for (checkpoint, case), result in zip(cases, answer.json()["results"], strict=True):
        assert result["status"] == 200, (checkpoint, result)
        (output,) = result["response"]["outputs"]
        if "settings" in case:
            start = len(case["input_ids"])
            assert output["token_ids"] == case["output"][start:], checkpoint
            assert output["score"] == pytest.approx(case["score"], abs=1e-4), checkpoint
        else:
            assert output["token_ids"] == case["greedy"], checkpoint


def test_what_is_shown_of_them(server: Served, original: Original, model: str) -> None:
    for checkpoint in CHECKPOINTS[model]:
        version = server.client.get(f"/prefixes/{checkpoint}").json()["active"]
        piece, tokens = original.piece(checkpoint), original.content[checkpoint]["prefix_length"]
        sites = [*piece.sites, *([] if piece.embeddings is None else ["embeddings"])]
        assert version["method"] == piece.method
        assert version["sites"] == dict.fromkeys(sites, tokens)
        assert version["prefix_tokens"] == tokens
