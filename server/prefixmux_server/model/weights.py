"""Reads a model's folder: weights from safetensors files only, code from transformers only."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
    PreTrainedModel,
)

from prefixmux_server.model.errors import UnsupportedModelError
from prefixmux_server.model.interface import ATTENTION_NAME, use_attention

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_weights(folder: Path, device: torch.device, dtype: str) -> PreTrainedModel:
    """The model in eval mode, set to call our attention. Raises UnsupportedModelError."""
    config = _load_config(folder)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    try:
        module, report = auto.from_pretrained(
            folder,
            config=config,
            dtype=_resolve_dtype(dtype, device, config),
            use_safetensors=True,
            attn_implementation="eager",
            output_loading_info=True,
        )
    except Exception as error:
        raise UnsupportedModelError(
            f"{config.model_type}: the weights cannot be loaded as a language model "
            f"({type(error).__name__}); they must be safetensors files"
        ) from error
    _check_complete(config, report["missing_keys"])
    # Only now: models that choose their attention when they are made know no name of ours.
    use_attention(module, ATTENTION_NAME)
    # GPT-2 compares every input with the padding id, which stalls the device; nothing is padded.
    module.config.pad_token_id = None
    module.requires_grad_(False)
    return module.eval().to(device)


def _check_complete(config: PreTrainedConfig, missing: Collection[str]) -> None:
    """Transformers makes up what the files lack, at random, and only logs it."""
    if missing:
        raise UnsupportedModelError(
            f"{config.model_type}: the weights lack {len(missing)} tensors that config.json asks "
            f"for, such as {min(missing)}"
        )


def _load_config(folder: Path) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(folder)
    except Exception as error:
        raise UnsupportedModelError(f"{folder.name}: no readable config.json") from error


def _resolve_dtype(name: str, device: torch.device, config: PreTrainedConfig) -> torch.dtype:
    """`auto` is float32 on a CPU and the checkpoint's own 16-bit type on a GPU."""
    if name != "auto":
        return _DTYPES[name]
    if device.type == "cpu":
        return torch.float32
    return config.dtype if config.dtype in (torch.bfloat16, torch.float16) else torch.bfloat16
