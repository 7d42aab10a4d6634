"""Checkpoints of the paper's own code: imported, stored, served, and answered as that code did."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from support.engines import Answers, answer
from support.golden_engine import check_beams, submit_of
from support.models import load_folder
from support.native import tensor_of
from support.original import CHECKPOINTS, Original
from support.stored import LogitsRecorder, stored_engine, upload

from prefixmux_server.engine.messages import Submit
from prefixmux_server.engine.params import BeamParams, SamplingParams
from prefixmux_server.memory.select import LayoutName
from prefixmux_server.model.load import LoadedModel
from prefixmux_store.convert.li_liang import from_li_liang
from prefixmux_store.format import parse
from prefixmux_store.store import PrefixStore

pytestmark = pytest.mark.shared


@dataclass(frozen=True)
class Served:
    """One base model, and its checkpoints in a store; `digests` by checkpoint."""

    original: Original
    loaded: LoadedModel
    store: Path
    digests: Mapping[str, str]

    def submit(self, checkpoint: str, label: str, case: Mapping[str, Any]) -> Submit:
        asked = self.original.asked(checkpoint, case)
        sampling = sampling_of(case, asked.max_new_tokens)
        return submit_of(f"{checkpoint}/{label}", asked, (self.digests[checkpoint],), sampling)

    def submits(self, *, beams: bool = False) -> dict[str, tuple[Submit, Mapping[str, Any]]]:
        """By request id."""
        return {
            f"{checkpoint}/{label}": (self.submit(checkpoint, label, case), case)
            for checkpoint in self.digests
            for label, case in self.original.cases(checkpoint, beams=beams).items()
        }


@pytest.fixture(scope="module", params=list(CHECKPOINTS))
def served(
    original: Original,
    device: str,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Served:
    loaded, root = load_folder(original.model(request.param), device=device), "store"
    folder = tmp_path_factory.mktemp(root)
    with PrefixStore.open(folder) as store:
        digests = {
            checkpoint: upload(
                store, loaded, checkpoint, from_li_liang(original.folder(checkpoint))
            )
            for checkpoint in CHECKPOINTS[request.param]
        }
    return Served(original, loaded, folder, digests)


def sampling_of(case: Mapping[str, Any], new: int) -> SamplingParams:
    """That code's `min_length` counts the prompt, or the decoder's start."""
    if "settings" not in case:
        return SamplingParams(max_new_tokens=new)
    told = case["settings"]
    return SamplingParams(
        max_new_tokens=new,
        min_new_tokens=max(0, told["min_length"] - (case["max_length"] - new)),
        no_repeat_ngram_size=told["no_repeat"],
        forced_eos_token_id=2 if told.get("force_last") else None,
        beams=BeamParams(
            num_beams=told["beams"],
            length_penalty=told["length_penalty"],
            early_stopping="yes" if told["early_stopping"] else "no",
            length_includes_prompt=True,
        ),
    )


def check_beam(case: Mapping[str, Any], answers: Answers, name: str) -> None:
    start = case.get("decoder_input_ids", case["input_ids"])
    assert case["output"][: len(start)] == start
    check_beams(answers.finished[name], [case["output"][len(start) :]], [case["score"]])


@pytest.mark.parametrize("checkpoint", [c for family in CHECKPOINTS.values() for c in family])
def test_an_import_is_what_that_code_folds(original: Original, checkpoint: str) -> None:
    file, piece = parse(from_li_liang(original.folder(checkpoint))), original.piece(checkpoint)
    wanted = dict(piece.sites)
    if piece.embeddings is not None:
        wanted["embeddings"] = piece.embeddings
    assert file.meta.method == piece.method
    assert file.offset("decoder") == piece.offset
    assert file.tensors.keys() == wanted.keys()
    for site, tensor in wanted.items():
        torch.testing.assert_close(tensor_of(file.tensors[site]), tensor, atol=1e-4, rtol=0)


def test_alone(served: Served, layout: LayoutName) -> None:
    recorder = LogitsRecorder()
    engine = stored_engine(served.loaded, layout, served.store, failpoints=recorder, capacity=1024)
    for name, (submit, case) in served.submits().items():
        assert answer(engine, [submit]).tokens[name] == case["greedy"], name
        first = recorder.of(name)[0].float().cpu()
        torch.testing.assert_close(first, served.original.logits[name], atol=1e-4, rtol=0)


def test_beam_searches_alone(served: Served, layout: LayoutName) -> None:
    """Scores count the prompt, as that code's did."""
    engine = stored_engine(served.loaded, layout, served.store, capacity=1024)
    for name, (submit, case) in served.submits(beams=True).items():
        check_beam(case, answer(engine, [submit]), name)


@pytest.mark.parametrize("budget", [9, 2048])
def test_all_together(served: Served, layout: LayoutName, budget: int) -> None:
    """Prefixes, infixes, embeddings and beam searches in one batch."""
    engine = stored_engine(served.loaded, layout, served.store, tokens=budget, capacity=8192)
    plain, beams = served.submits(), served.submits(beams=True)
    submits = [submit for submit, _ in (*plain.values(), *beams.values())]
    for submit in random.Random(budget).sample(submits, len(submits)):
        engine.submit(submit)
    answers = Answers().run(engine)
    for name, (_, case) in plain.items():
        assert answers.tokens[name] == case["greedy"], name
    for name, (_, case) in beams.items():
        check_beam(case, answers, name)
