"""Makes what the workload needs on disk: a random GPT-2 with a tokenizer, and PEFT adapters.

The weights are larger than GPT-2's own initialisation: with that, greedy decoding repeats one
token; with these, each token depends on all before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PrefixTuningConfig
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch.nn.init import normal_
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from bench.workload import ModelShape, Workload, task_id

_EMBEDDING_STD = 0.05
_WEIGHT_STD = 0.1
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
    _save_model(workload.shape, artefacts.model)
    _save_tokenizer(workload.shape.vocabulary, artefacts.model)
    for task in range(tasks):
        _save_adapter(workload, task, artefacts)
    return artefacts


def _save_model(shape: ModelShape, folder: Path) -> None:
    config = GPT2Config(
        n_layer=shape.layers,
        n_head=shape.heads,
        n_embd=shape.hidden,
        vocab_size=shape.vocabulary,
        n_positions=shape.context,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = GPT2LMHeadModel(config)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            std = _EMBEDDING_STD if name.endswith(("wte.weight", "wpe.weight")) else _WEIGHT_STD
            normal_(parameter, std=std, generator=generator)
    model.save_pretrained(folder)


def _save_tokenizer(vocabulary: int, folder: Path) -> None:
    words = {f"w{number}": number for number in range(vocabulary)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)


def _save_adapter(workload: Workload, task: int, artefacts: Artefacts) -> None:
    shape, tokens = workload.shape, workload.prefix_tokens(task)
    folder = artefacts.adapter(task)
    folder.mkdir(parents=True)
    config = PrefixTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=tokens,
        num_layers=shape.layers,
        num_attention_heads=shape.heads,
        token_dim=shape.hidden,
        num_transformer_submodules=1,
        base_model_name_or_path=str(artefacts.model),
        inference_mode=True,
    )
    config.save_pretrained(folder)
    generator = torch.Generator().manual_seed(task)
    values = _PREFIX_STD * torch.randn(tokens, shape.kv_values, generator=generator)
    save_file({"prompt_embeddings": values}, folder / "adapter_model.safetensors")
