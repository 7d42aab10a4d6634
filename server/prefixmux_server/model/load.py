"""Loads a decoder-only model and its tokenizer, binds it, and proves it.

Weights come from safetensors only, code from transformers only. It knows nothing of prefixes'
files, tasks or requests.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)

from prefixmux_server.memory.layout import KVLayout, SiteSpec
from prefixmux_server.model.binding import ATTENTION_NAME, bind, register_attention
from prefixmux_server.model.causal import CausalModel
from prefixmux_server.model.dense import DenseReport, optimise
from prefixmux_server.model.errors import UnsupportedModelError
from prefixmux_server.model.proof import Proof

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


@dataclass(frozen=True)
class Tokenizer:
    """A fast tokenizer, as the `tokenizers` library's JSON."""

    json: str
    special_token_ids: tuple[int, ...]
    chat_template: str | None


@dataclass(frozen=True)
class LoadedModel:
    """A proven model: what runs it, and what others must know of it."""

    module: PreTrainedModel
    model: CausalModel
    spec: SiteSpec
    architecture: str
    hidden: int
    vocabulary: int
    context: int | None
    eos_token_ids: tuple[int, ...]
    tokenizer: Tokenizer | None
    dense: DenseReport


def resolve_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise UnsupportedModelError("there is no CUDA device here; start with --device cpu")
    return torch.device(name)


def resolve_dtype(name: str, device: torch.device, config: PreTrainedConfig) -> torch.dtype:
    """`auto` is float32 on a CPU and the checkpoint's own 16-bit type on a GPU."""
    if name != "auto":
        return _DTYPES[name]
    if device.type == "cpu":
        return torch.float32
    return config.dtype if config.dtype in (torch.bfloat16, torch.float16) else torch.bfloat16


def locate(model: str) -> Path:
    """The model's folder: local, or downloaded from the Hugging Face hub (safetensors only)."""
    if Path(model).is_dir():
        return Path(model)
    try:
        return Path(snapshot_download(model, allow_patterns=_HUB_FILES))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UnsupportedModelError(
            f"no model at {model!r}: give a local folder with config.json and safetensors "
            "weights, or the name of a hub repository that can be reached"
        ) from error


def load_model(
    folder: Path,
    device: torch.device,
    dtype: str,
    trial_layout: Callable[[SiteSpec, torch.dtype], KVLayout],
) -> LoadedModel:
    """Raises UnsupportedModelError, naming the cause."""
    register_attention()
    config = _load_config(folder)
    module = _load_weights(folder, config, device, resolve_dtype(dtype, device, config))
    binding = bind(module)
    proof = Proof(module, binding.spec)
    dense = optimise(module, dtype=module.dtype, device=device)
    model = CausalModel(module, binding)
    proof.check(model, trial_layout(binding.spec, module.dtype))
    text = config.get_text_config()
    return LoadedModel(
        module=module,
        model=model,
        spec=binding.spec,
        architecture=type(module).__name__,
        hidden=int(text.hidden_size),
        vocabulary=int(text.vocab_size),
        context=_context(text),
        eos_token_ids=_eos_token_ids(module),
        tokenizer=_load_tokenizer(folder),
        dense=dense,
    )


def _load_config(folder: Path) -> PreTrainedConfig:
    try:
        config = AutoConfig.from_pretrained(folder)
    except Exception as error:
        raise UnsupportedModelError(f"{folder.name}: no readable config.json") from error
    if config.is_encoder_decoder:
        raise UnsupportedModelError(
            f"{config.model_type} is an encoder-decoder model; only decoder-only models are served"
        )
    return config


def _load_weights(
    folder: Path, config: PreTrainedConfig, device: torch.device, dtype: torch.dtype
) -> PreTrainedModel:
    try:
        module, report = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            attn_implementation="eager",
            output_loading_info=True,
        )
    except Exception as error:
        raise UnsupportedModelError(
            f"{config.model_type}: the weights cannot be loaded as a causal language model "
            f"({type(error).__name__}); they must be safetensors files"
        ) from error
    _check_complete(config, report["missing_keys"])
    # Only now: models that choose their attention when they are made know no name of ours.
    module.set_attn_implementation(ATTENTION_NAME)
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


def _context(config: PreTrainedConfig) -> int | None:
    limit = getattr(config, "max_position_embeddings", None)
    return None if limit is None else int(limit)


def _eos_token_ids(module: PreTrainedModel) -> tuple[int, ...]:
    generation = getattr(module, "generation_config", None)
    ids: Any = getattr(generation, "eos_token_id", None)
    if ids is None:
        ids = module.config.get_text_config().eos_token_id
    if ids is None:
        return ()
    return tuple(ids) if isinstance(ids, list) else (int(ids),)


def _load_tokenizer(folder: Path) -> Tokenizer | None:
    """None where the folder has no fast tokenizer: then only token ids are served."""
    if not any((folder / name).exists() for name in _TOKENIZER_FILES):
        return None
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # noqa: BLE001 - a broken file makes transformers raise anything
        _log().warning("the tokenizer cannot be read (%s): ids only", type(error).__name__)
        return None
    if not tokenizer.is_fast:
        _log().warning("the model has no fast tokenizer: ids only")
        return None
    template = tokenizer.chat_template
    return Tokenizer(
        json=tokenizer.backend_tokenizer.to_str(),
        special_token_ids=tuple(tokenizer.all_special_ids),
        chat_template=template if isinstance(template, str) else None,
    )


def _log() -> logging.Logger:
    return logging.getLogger(__name__)
