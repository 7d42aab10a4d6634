"""The frozen model in transformers, with PEFT around it: one request at a time, or one task.

The three peers of this kind share one loaded model, as a user of these libraries would.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from bench.peers.base import Bench, Sample
from bench.workload import task_id

# One request after another is as fast for 4 as for 64, so no more are measured.
SINGLE_REQUESTS = 4


class HuggingFaceModel:
    """transformers' model with the first tasks' adapters loaded, decoding past EOS."""

    def __init__(self, bench: Bench) -> None:
        torch.set_num_threads(bench.threads)
        self.workload = bench.workload
        kind = AutoModelForSeq2SeqLM if self.workload.shape.encodes else AutoModelForCausalLM
        dtype = getattr(torch, bench.dtype)
        base = kind.from_pretrained(bench.artefacts.model, dtype=dtype).eval()
        base.generation_config.eos_token_id = None
        base.generation_config.pad_token_id = 0
        folders = [bench.artefacts.adapter(task) for task in range(min(4, bench.largest))]
        self.peft = PeftModel.from_pretrained(base, folders[0], adapter_name=task_id(0)).eval()
        for folder in folders[1:]:
            self.peft.load_adapter(folder, adapter_name=folder.name)

    @property
    def bare(self) -> Any:
        return self.peft.get_base_model()

    def run(self, model: Any, first: int, count: int, new_tokens: int) -> list[tuple[int, ...]]:
        """New tokens of `count` requests from `first` on, in one batch of `model`."""
        prompts = [self.workload.prompt(i) for i in range(first, first + count)]
        return generate(model, torch.tensor(prompts), new_tokens, self.workload.beams)


@torch.inference_mode()
def generate(model: Any, ids: Tensor, new_tokens: int, beams: int) -> list[tuple[int, ...]]:
    """What comes before the new tokens, prompt or start token, is cut off."""
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new_tokens,
        num_beams=beams,
        do_sample=False,
    )
    return [tuple(row) for row in output[:, -new_tokens:].tolist()]


def timed(started: float, outputs: list[tuple[int, ...]]) -> Sample:
    seconds = time.perf_counter() - started
    return Sample(sum(map(len, outputs)), seconds, len(outputs), tuple(outputs))


class PeftSingle:
    """PEFT, one request at a time, `set_adapter` before each: what mixed tasks need today."""

    def __init__(self, model: HuggingFaceModel) -> None:
        self._model = model

    def run(self, requests: int, new_tokens: int) -> Sample:
        outputs: list[tuple[int, ...]] = []
        started = time.perf_counter()
        for request in range(min(requests, SINGLE_REQUESTS)):
            self._model.peft.set_adapter(task_id(request))
            outputs += self._model.run(self._model.peft, request, 1, new_tokens)
        return timed(started, outputs)

    def close(self) -> None:
        """The model is shared; it ends with its last peer."""


class PeftBatched:
    """PEFT, all requests in one batch: possible only if all are of one task."""

    def __init__(self, model: HuggingFaceModel) -> None:
        self._model = model

    def run(self, requests: int, new_tokens: int) -> Sample:
        started = time.perf_counter()
        self._model.peft.set_adapter(task_id(0))
        return timed(started, self._model.run(self._model.peft, 0, requests, new_tokens))

    def close(self) -> None:
        """As in `PeftSingle`."""


class Bare:
    """transformers' `generate`, batched, without any prefix."""

    def __init__(self, model: HuggingFaceModel) -> None:
        self._model = model

    def run(self, requests: int, new_tokens: int) -> Sample:
        started = time.perf_counter()
        return timed(started, self._model.run(self._model.bare, 0, requests, new_tokens))

    def close(self) -> None:
        """As in `PeftSingle`."""
