"""Adapters made and answered by PEFT itself: the reference for everything that PEFT can say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, PrefixTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from prefixmux_store.convert.peft import from_peft
from prefixmux_store.validate import ModelShape

_WEIGHTS = "adapter_model.safetensors"


def save_adapter(
    model: Path, folder: Path, tokens: int, *, seed: int, scale: float = 1.0, **config: Any
) -> Path:
    """A prefix adapter of random content, as PEFT saves it; `config` as in PrefixTuningConfig."""
    torch.manual_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(model)
    settings = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=tokens, **config)
    adapted = get_peft_model(base, settings)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "prompt_encoder" in name:
                parameter.mul_(scale)
    adapted.save_pretrained(folder)
    return folder


def narrow(folder: Path, dtype: torch.dtype) -> Path:
    """Stores the adapter's weights in a 16-bit type."""
    weights = load_file(folder / _WEIGHTS)
    save_file({name: tensor.to(dtype) for name, tensor in weights.items()}, folder / _WEIGHTS)
    return folder


def native(folder: Path, shape: ModelShape) -> bytes:
    """The adapter as a native prefix file, by the converter that uploads go through."""
    config = (folder / "adapter_config.json").read_bytes()
    return from_peft(config, (folder / _WEIGHTS).read_bytes(), shape)


@dataclass(frozen=True)
class Spoken:
    """What PEFT's `generate` gave one request: tokens, and the logits they were chosen from."""

    tokens: tuple[int, ...]
    logits: torch.Tensor


class Reference:
    """A model and, one at a time, its adapters (None: bare). Requests run one by one."""

    def __init__(self, model: Path, adapter: Path | None) -> None:
        base = AutoModelForCausalLM.from_pretrained(model)
        self._model = base if adapter is None else PeftModel.from_pretrained(base, adapter)
        self._model.eval()

    @torch.inference_mode()
    def speak(self, input_ids: Sequence[int], count: int) -> Spoken:
        """Greedy; ends early on the model's end of sequence."""
        ids = torch.tensor([list(input_ids)])
        output = self._model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=count,
            do_sample=False,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
        )
        tokens = output.sequences[0, len(input_ids) :].tolist()
        return Spoken(tuple(tokens), torch.cat(output.logits))
