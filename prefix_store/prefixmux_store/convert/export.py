"""A native prefix file to PEFT's two files, as far as PEFT can express it.

Sites other than the decoder, unshifted positions, infixes and texts have no form there and are
refused by name. For encoder-decoder models PEFT hands decoder layer l slot 2l mod L of the file's
L; for an odd L no two layers share a slot, so an odd L is written, with a slot of zeros that no
layer gets where the decoder has an even number of layers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from prefixmux_store import container
from prefixmux_store.convert.peft import COLUMNS, PROMPT, ROWS
from prefixmux_store.convert.peft_config import KV_METHODS
from prefixmux_store.errors import UnsupportedMethod
from prefixmux_store.format import PrefixFile, RawTensor
from prefixmux_store.meta import EMBEDDING_METHODS
from prefixmux_store.validate import ModelShape, check_model

_TASKS = {"causal": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM"}


@dataclass(frozen=True)
class PeftFolder:
    """Both files as their bytes."""

    adapter_config: bytes
    adapter_model: bytes


def to_peft(file: PrefixFile, shape: ModelShape) -> PeftFolder:
    """`shape` is the model's that the prefix is for: PEFT's files say its family and sizes.

    Read back, the files give the same method and the same bits. Raises `UnsupportedMethod`, and
    what `check_model` raises.
    """
    check_model(file, shape)
    method = file.meta.method
    if method in KV_METHODS:
        return _key_values(file, shape)
    if method in EMBEDDING_METHODS:
        return _embeddings(file, shape)
    raise UnsupportedMethod(f"PEFT has no form for {method}; the native file is the only one.")


def _key_values(file: PrefixFile, shape: ModelShape) -> PeftFolder:
    if others := sorted(file.tensors.keys() - {"decoder"}):
        raise UnsupportedMethod(f"PEFT's prefixes are the decoder's; this one has {others[0]} too.")
    if file.offset("decoder") != file.tokens:
        raise UnsupportedMethod(
            "PEFT shifts positions by the prefix's length; this prefix leaves them where they are."
        )
    decoder = file.tensors["decoder"]
    layers, _, tokens, heads, width = decoder.shape
    slots = layers if shape.family == "causal" else layers + 1 - layers % 2
    words = np.zeros((tokens, slots, 2, heads, width), decoder.words().dtype)
    for layer, values in enumerate(decoder.words()):
        slot = layer if shape.family == "causal" else 2 * layer % slots
        words[:, slot] = values.transpose(1, 0, 2, 3)
    flat = RawTensor(decoder.dtype, (tokens, words[0].size), memoryview(words.tobytes()))
    sizes = {"num_layers": slots, "num_attention_heads": heads, "token_dim": heads * width}
    # A cartridge's rows that were frozen in training are rows like any other afterwards.
    special: dict[str, object] = {"num_frozen_tokens": 0}
    if file.meta.method == "PREFIX_TUNING":
        special = {"prefix_projection": False, "encoder_hidden_size": None}
    submodules = 1 if shape.family == "causal" else 2
    return _folder(file, shape, {**sizes, **special}, submodules, {PROMPT: flat})


def _embeddings(file: PrefixFile, shape: ModelShape) -> PeftFolder:
    """With one submodule, so that no rows for the decoder are needed, which nothing would read."""
    prompt = file.tensors["embeddings"]
    tensors, special = {PROMPT: prompt}, dict[str, object]()
    if file.meta.method == "MULTITASK_PROMPT_TUNING":
        # One task whose own matrix is all ones: x * 1 is x to the bit.
        tensors |= {COLUMNS: _ones(1, prompt.shape[0], 1), ROWS: _ones(1, 1, prompt.shape[1])}
        special = {"num_tasks": 1, "num_ranks": 1}
    sizes = {
        "num_layers": shape.layers,
        "num_attention_heads": shape.kv_heads,
        "token_dim": prompt.shape[1],
    }
    return _folder(file, shape, {**sizes, **special}, 1, tensors)


def _folder(
    file: PrefixFile,
    shape: ModelShape,
    special: dict[str, object],
    submodules: int,
    tensors: dict[str, RawTensor],
) -> PeftFolder:
    said = file.meta.provenance
    content = {
        "base_model_name_or_path": said.get("base_model"),
        "inference_mode": True,
        "modules_to_save": None,
        "num_transformer_submodules": submodules,
        "num_virtual_tokens": file.tokens,
        "peft_type": file.meta.method,
        "task_type": _TASKS[shape.family],
        **special,
    }
    if "peft_version" in said:
        content["peft_version"] = said["peft_version"]
    config = json.dumps(content, indent=2, sort_keys=True).encode("utf-8")
    return PeftFolder(config, container.write(tensors, {"format": "pt"}))


def _ones(*sizes: int) -> RawTensor:
    return RawTensor("F32", sizes, memoryview(np.ones(sizes, "<f4").tobytes()))
