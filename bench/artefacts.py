"""What the workload needs on disk: the model, and each task's prefix as PEFT saves one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PrefixTuningConfig
from safetensors.torch import save_file

from bench.models import save_model
from bench.workload import Workload, task_id

_PREFIX_STD = 0.3


@dataclass(frozen=True)
class Artefacts:
    """Where the model and the adapters are; adapter of task i in `adapter(i)`."""

    model: Path
    adapters: Path

    def adapter(self, task: int) -> Path:
        return self.adapters / task_id(task)


def make_artefacts(workload: Workload, tasks: int, folder: Path) -> Artefacts:
    artefacts = Artefacts(folder / "model", folder / "adapters")
    save_model(workload.shape, artefacts.model)
    for task in range(tasks):
        _save_adapter(workload, task, artefacts)
    return artefacts


def _save_adapter(workload: Workload, task: int, artefacts: Artefacts) -> None:
    shape, tokens = workload.shape, workload.prefix_tokens(task)
    folder = artefacts.adapter(task)
    folder.mkdir(parents=True)
    config = PrefixTuningConfig(
        task_type="SEQ_2_SEQ_LM" if shape.encodes else "CAUSAL_LM",
        num_virtual_tokens=tokens,
        num_layers=shape.layers,
        num_attention_heads=shape.heads,
        token_dim=shape.hidden,
        num_transformer_submodules=2 if shape.encodes else 1,
        base_model_name_or_path=str(artefacts.model),
        inference_mode=True,
    )
    config.save_pretrained(folder)
    generator = torch.Generator().manual_seed(task)
    values = _PREFIX_STD * torch.randn(tokens, shape.kv_values, generator=generator)
    save_file({"prompt_embeddings": values}, folder / "adapter_model.safetensors")
