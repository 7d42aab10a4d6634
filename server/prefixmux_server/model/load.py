"""Loads a model of either family and its tokenizer, binds it, and proves it.

It knows nothing of prefixes' files, tasks or requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from transformers import PreTrainedModel

from prefixmux_server.memory.layout import SiteSpec
from prefixmux_server.memory.prefix import DECODER
from prefixmux_server.model.binding import Binding, bind
from prefixmux_server.model.causal import CausalModel
from prefixmux_server.model.dense import DenseReport, optimise
from prefixmux_server.model.errors import UnsupportedModelError
from prefixmux_server.model.inputs import SequenceModel
from prefixmux_server.model.interface import register_attention
from prefixmux_server.model.limits import positions_of, vocabulary_of
from prefixmux_server.model.proof import MakeMemory, Proof
from prefixmux_server.model.seq2seq import Seq2SeqModel
from prefixmux_server.model.special import special_tokens
from prefixmux_server.model.tokenizer import Tokenizer, load_tokenizer
from prefixmux_server.model.weights import load_weights

_METHODS = ("PREFIX_TUNING", "CARTRIDGE", "TEXT")
_EMBEDDING_METHODS = ("PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING")
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


@dataclass(frozen=True)
class LoadedModel:
    """A proven model: what runs it, and what others must know of it.

    `specs` are its attention sites by name. `context` and `encoder_context` are numbers of
    positions (None: no limit, or no encoder), `embedding_width` is what a virtual token's embedding
    has. `left_out` says why methods that others of its family run are not among its `methods`.
    """

    module: PreTrainedModel
    model: SequenceModel
    family: Literal["causal", "seq2seq"]
    specs: Mapping[str, SiteSpec]
    architecture: str
    hidden: int
    embedding_width: int
    vocabulary: int
    context: int | None
    encoder_context: int | None
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None
    decoder_start_token_id: int | None
    forced_bos_token_id: int | None
    forced_eos_token_id: int | None
    methods: tuple[str, ...]
    left_out: Mapping[str, str]
    tokenizer: Tokenizer | None
    dense: DenseReport


def resolve_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise UnsupportedModelError("there is no CUDA device here; start with --device cpu")
    return torch.device(name)


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
    folder: Path, device: torch.device, dtype: str, make_memory: MakeMemory
) -> LoadedModel:
    """`make_memory` is for the proof. Raises UnsupportedModelError, naming the cause."""
    register_attention()
    module = load_weights(folder, device, dtype)
    binding = bind(module)
    proof = Proof(module, binding)
    dense = optimise(module, dtype=module.dtype, device=device)
    make = Seq2SeqModel if binding.encodes else CausalModel
    model: SequenceModel = make(module, binding, proof.embedding())
    methods, left_out = _methods(binding, proof.check(model, make_memory))
    limit, special = _context(module, binding), special_tokens(module)
    return LoadedModel(
        module=module,
        model=model,
        family="seq2seq" if binding.encodes else "causal",
        specs=binding.sites,
        architecture=type(module).__name__,
        hidden=int(module.config.get_text_config().hidden_size),
        embedding_width=proof.width,
        vocabulary=vocabulary_of(module),
        context=limit,
        encoder_context=limit if binding.encodes else None,
        eos_token_ids=special.eos,
        bos_token_id=special.bos,
        decoder_start_token_id=special.decoder_start,
        forced_bos_token_id=special.forced_bos,
        forced_eos_token_id=special.forced_eos,
        methods=methods,
        left_out=left_out,
        tokenizer=load_tokenizer(folder),
        dense=dense,
    )


def _methods(binding: Binding, refusal: str | None) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """What is served, and why the rest is not: `refusal` is of virtual embeddings."""
    always, embedded = list(_METHODS), list(_EMBEDDING_METHODS)
    if not binding.encodes:
        always.append("INFIX_TUNING")
        embedded.append("INFIX_EMBEDDING")
    if refusal is None:
        return (*always, *embedded), {}
    return tuple(always), dict.fromkeys(embedded, refusal)


def _context(module: PreTrainedModel, binding: Binding) -> int | None:
    """Where the scores tell distances, no number in a config is a limit."""
    biased = any(rule.bias is not None for rule in binding.sites[DECODER].rules)
    return None if biased else positions_of(module)
