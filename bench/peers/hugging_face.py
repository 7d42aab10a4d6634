"""The frozen model in transformers, with PEFT around it: one request at a time, or one task.

The three peers of this kind share one loaded model, as a user of these libraries would.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

from bench.peers.base import Bench, Sample
from bench.workload import task_id

# One request after another is as fast for 4 as for 64, so no more are measured.
SINGLE_REQUESTS = 4


class HuggingFaceModel:
    """transformers' model with the first tasks' adapters loaded, decoding greedily past EOS."""

    def __init__(self, bench: Bench) -> None:
        torch.set_num_threads(bench.threads)
        self.workload = bench.workload
        base = AutoModelForCausalLM.from_pretrained(
            bench.artefacts.model, dtype=getattr(torch, bench.dtype)
        ).eval()
        base.generation_config.eos_token_id = None
        base.generation_config.pad_token_id = 0
        folders = [bench.artefacts.adapter(task) for task in range(min(4, bench.largest))]
        self.peft = PeftModel.from_pretrained(base, folders[0], adapter_name=task_id(0)).eval()
        for folder in folders[1:]:
            self.peft.load_adapter(folder, adapter_name=folder.name)

    @property
    def bare(self) -> Any:
        return self.peft.get_base_model()

    def prompts(self, first: int, count: int) -> Tensor:
        return torch.tensor([self.workload.prompt(i) for i in range(first, first + count)])


@torch.inference_mode()
def generate(model: Any, ids: Tensor, new_tokens: int) -> list[tuple[int, ...]]:
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new_tokens,
        do_sample=False,
    )
    return [tuple(row) for row in output[:, ids.shape[1] :].tolist()]


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
            outputs += generate(self._model.peft, self._model.prompts(request, 1), new_tokens)
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
        ids = self._model.prompts(0, requests)
        return timed(started, generate(self._model.peft, ids, new_tokens))

    def close(self) -> None:
        """As in `PeftSingle`."""


class Bare:
    """transformers' `generate`, batched, without any prefix."""

    def __init__(self, model: HuggingFaceModel) -> None:
        self._model = model

    def run(self, requests: int, new_tokens: int) -> Sample:
        started = time.perf_counter()
        ids = self._model.prompts(0, requests)
        return timed(started, generate(self._model.bare, ids, new_tokens))

    def close(self) -> None:
        """As in `PeftSingle`."""
