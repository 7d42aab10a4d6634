"""Golden cases as requests to an engine: prefixes through the project's own importers into a
store, and answers held against the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from prefixmux_server.engine.messages import Finished, Submit
from prefixmux_server.engine.params import BeamParams, EarlyStopping, SamplingParams
from prefixmux_server.model.load import LoadedModel
from prefixmux_store.convert.peft import from_peft
from prefixmux_store.store import PrefixStore
from prefixmux_store.validate import ModelShape
from support.engines import TENANT, Answers
from support.golden import NATIVE, Case, Golden, is_beam, offset_of
from support.native import native_file
from support.shapes import shape_of
from support.slow import Asked
from support.stored import LogitsRecorder, upload

_EARLY: Mapping[bool | str, EarlyStopping] = {True: "yes", False: "no", "never": "never"}


def imported(golden: Golden, case: Case, shape: ModelShape) -> bytes:
    """The case's prefix as a native file, by the importer of its format."""
    folder = golden.root / "adapters" / case["adapter"]
    if case["method"] in NATIVE:
        return native_file(golden.piece(case))
    return from_peft(
        (folder / "adapter_config.json").read_bytes(),
        (folder / "adapter_model.safetensors").read_bytes(),
        shape,
        case.get("task_id"),
    )


def prefix_key(case: Case) -> str:
    """One adapter may be several prefixes: of other tasks, or behind another offset."""
    return f"{case['adapter']}@{offset_of(case)}#{case.get('task_id')}"


@dataclass(frozen=True)
class GoldenModel:
    """A model, its cases, and a store with all their prefixes; `digests` by `prefix_key`."""

    golden: Golden
    name: str
    loaded: LoadedModel
    store: Path
    digests: Mapping[str, str]

    @classmethod
    def make(cls, golden: Golden, name: str, loaded: LoadedModel, root: Path) -> GoldenModel:
        digests: dict[str, str] = {}
        with PrefixStore.open(root) as store:
            for case in (*golden.cases(name), *golden.refused(name)):
                if case["adapter"] is not None and prefix_key(case) not in digests:
                    data = imported(golden, case, shape_of(loaded))
                    task = f"task-{len(digests)}"
                    digests[prefix_key(case)] = upload(store, loaded, task, data)
        return cls(golden, name, loaded, root, digests)

    @property
    def cases(self) -> list[Case]:
        return self.golden.cases(self.name)

    def prefixes(self, case: Case) -> tuple[str, ...]:
        return () if case["adapter"] is None else (self.digests[prefix_key(case)],)

    def submit(self, case: Case, suffix: str = "") -> Submit:
        asked = self.golden.asked(case)
        return submit_of(f"{case['id']}{suffix}", asked, self.prefixes(case), sampling_of(case))

    def check(self, case: Case, answers: Answers, suffix: str = "") -> None:
        name = f"{case['id']}{suffix}"
        finished = answers.finished[name]
        assert finished.error is None, name
        assert finished.reason == case["finish_reason"], name
        assert finished.prefixes == self.prefixes(case)
        assert sum(finished.prefix_tokens) == case["prefix_tokens"]
        if is_beam(case):
            assert name not in answers.tokens, "a beam search says nothing before its end"
            check_beams(finished, case["sequences"], case["sequence_scores"])
        else:
            assert answers.tokens[name] == case["output_ids"], name

    def check_logits(self, case: Case, recorder: LogitsRecorder) -> None:
        """Of the first token, or of all where the file has them; a beam search has none."""
        if is_beam(case):
            return
        truth, found = self.golden.logits[case["id"]], recorder.of(case["id"]).float().cpu()
        found = found if truth.ndim == 2 else found[0]
        torch.testing.assert_close(found, truth, atol=2e-4, rtol=0, msg=case["id"])


def submit_of(name: str, asked: Asked, prefixes: Iterable[str], sampling: SamplingParams) -> Submit:
    return Submit(
        id=name,
        tenant=TENANT,
        prefixes=tuple(prefixes),
        input_ids=asked.input_ids,
        decoder_ids=asked.decoder_ids,
        sampling=sampling,
    )


def check_beams(finished: Finished, sequences: list[list[int]], scores: Iterable[float]) -> None:
    assert [list(beam.token_ids) for beam in finished.beams] == sequences, finished.id
    assert [beam.score for beam in finished.beams] == pytest.approx(list(scores), abs=1e-4)


def sampling_of(case: Case) -> SamplingParams:
    """As transformers' `generate` was told."""
    told = case["generation"]
    beams = None
    if is_beam(case):
        beams = BeamParams(
            num_beams=told["num_beams"],
            length_penalty=told["length_penalty"],
            early_stopping=_EARLY[told["early_stopping"]],
            num_return=told["num_return_sequences"],
        )
    return SamplingParams(
        max_new_tokens=case["max_new_tokens"],
        no_repeat_ngram_size=told.get("no_repeat_ngram_size", 0),
        forced_bos_token_id=told.get("forced_bos_token_id"),
        forced_eos_token_id=told.get("forced_eos_token_id"),
        beams=beams,
    )
