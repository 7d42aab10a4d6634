"""Tiny random models, made on the spot; `FAMILIES` are the plain decoder-only ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PhiConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from prefixmux_server.memory.select import LayoutName, make_memory
from prefixmux_server.model.load import LoadedModel, load_model

VOCABULARY = 97
EOS = 2
_WIDTHS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SPECIAL = {"vocab_size": VOCABULARY, "eos_token_id": EOS, "bos_token_id": 1, "pad_token_id": 0}
GATED = {"intermediate_size": 64, "max_position_embeddings": 512, **_WIDTHS, **SPECIAL}

FAMILIES: dict[str, Callable[[], PreTrainedConfig]] = {
    "gpt2": lambda: GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=512, **SPECIAL),
    "llama": lambda: LlamaConfig(num_key_value_heads=2, **GATED),
    "qwen2": lambda: Qwen2Config(num_key_value_heads=2, **GATED),
    "qwen3": lambda: Qwen3Config(num_key_value_heads=1, head_dim=16, **GATED),
    "mistral": lambda: MistralConfig(num_key_value_heads=2, sliding_window=None, **GATED),
    "opt": lambda: OPTConfig(
        ffn_dim=64, max_position_embeddings=512, word_embed_proj_dim=32, **_WIDTHS, **SPECIAL
    ),
    "gpt_neox": lambda: GPTNeoXConfig(**GATED),
    "phi": lambda: PhiConfig(**GATED),
}


def devices() -> list[Any]:
    """Parameters of a test that runs on every device at hand; the others are skipped by name."""
    absent = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
    return ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, absent])]


def save_tiny(config: PreTrainedConfig, folder: Path, *, seed: int = 0, scale: float = 6.0) -> Path:
    """Random weights large enough that greedy text varies from token to token."""
    torch.manual_seed(seed)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = kind.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(scale)
    model.save_pretrained(folder)
    return folder


def load_folder(folder: Path, *, dtype: str = "float32", device: str = "cpu") -> LoadedModel:
    """Loaded and proven, as the server does it."""
    where = torch.device(device)
    name: LayoutName = "rows" if device == "cpu" else "slots"
    return load_model(
        folder, where, dtype, lambda specs, kind: make_memory(name, specs, 512, kind, where)
    )


def random_prefix(loaded: LoadedModel, tokens: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    """`[L, 2, tokens, H_kv, D]`."""
    spec = loaded.specs["decoder"]
    generator = torch.Generator().manual_seed(seed)
    shape = (spec.layers, 2, tokens, spec.kv_heads, spec.k_dim)
    return (torch.randn(shape, generator=generator) * scale).to(loaded.module.dtype)
