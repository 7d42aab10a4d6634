"""Every adapter of the reference data, as its own model sees it, recomputed by other means."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from prefixmux_store.convert.peft import from_peft
from prefixmux_store.format import parse
from prefixmux_store.validate import ModelShape, SiteShape
from store.test_peft import by_hand
from store.test_peft_seq2seq import as_peft_does

METHODS = ("PREFIX_TUNING", "CARTRIDGE", "PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING")
WORDS = {"F32": "<u4", "BF16": "<u2"}


def shape_of(model: Mapping[str, Any]) -> ModelShape:
    """From the model's own config, by each family's own names."""
    seq2seq = bool(model.get("is_encoder_decoder"))
    layers = _first(model, "decoder_layers", "num_decoder_layers", "num_hidden_layers", "n_layer")
    hidden = _first(model, "d_model", "hidden_size", "n_embd")
    heads = _first(model, "decoder_attention_heads", "num_attention_heads", "n_head", "num_heads")
    kv_heads = model.get("num_key_value_heads") or heads
    width = model.get("d_kv") or model.get("head_dim") or hidden // heads
    site = SiteShape(layers, kv_heads, width, width)
    return ModelShape(
        architecture=model["architectures"][0],
        family="seq2seq" if seq2seq else "causal",
        layers=layers,
        kv_heads=kv_heads,
        head_dim=width,
        hidden=hidden,
        vocabulary=model["vocab_size"],
        fingerprint=None,
        methods=METHODS,
        sites={"decoder": site},
        max_prefix_tokens=1024,
    )


def _first(content: Mapping[str, Any], *names: str) -> int:
    return next(int(content[name]) for name in names if content.get(name))


def arrays(data: bytes) -> dict[str, tuple[str, npt.NDArray[np.unsignedinteger]]]:
    """The tensors of a safetensors file as their bits, read without our own code."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            words = np.frombuffer(data[start + begin : start + end], WORDS[entry["dtype"]])
            found[name] = entry["dtype"], words.reshape(entry["shape"])
    return found


def expected(
    about: Mapping[str, Any], data: bytes, shape: ModelShape, task: int | None
) -> npt.NDArray[Any]:
    """Bits of the native tensor; for one task of several its values in double precision."""
    held = arrays(data)
    words = held["prompt_embeddings"][1]
    tokens = about["num_virtual_tokens"]
    if task is not None:
        wide = {name: part.view("<f4").astype(np.float64) for name, (_, part) in held.items()}
        matrix = wide["prefix_task_cols"][task] @ wide["prefix_task_rows"][task]
        return np.asarray((wide["prompt_embeddings"] * matrix)[:tokens])
    if about["peft_type"] not in {"PREFIX_TUNING", "CARTRIDGE"}:
        return np.asarray(words[:tokens])
    layers, heads = about["num_layers"], about["num_attention_heads"]
    if shape.family == "causal":
        return by_hand(words, layers, heads)
    return as_peft_does(words, layers, shape.layers, heads)


@pytest.mark.shared
def test_every_adapter_of_the_reference_data(shared: Path) -> None:
    golden = shared / "golden"
    counted: Counter[tuple[str, str]] = Counter()
    for folder in sorted((golden / "adapters").iterdir()):
        if not (folder / "adapter_config.json").is_file():
            continue
        raw = (folder / "adapter_config.json").read_bytes()
        data = (folder / "adapter_model.safetensors").read_bytes()
        about = json.loads(raw)
        model = about["base_model_name_or_path"]
        shape = shape_of(json.loads((golden / model / "config.json").read_text()))
        several = about["peft_type"] == "MULTITASK_PROMPT_TUNING"
        for task in range(about["num_tasks"]) if several else (None,):
            found = parse(from_peft(raw, data, shape, task))
            (tensor,) = found.tensors.values()
            right = expected(about, data, shape, task)
            if several:
                np.testing.assert_allclose(tensor.floats(), right, rtol=1e-6, atol=1e-6)
            else:
                assert tensor.dtype == arrays(data)["prompt_embeddings"][0]
                np.testing.assert_array_equal(tensor.words(), right)
            assert found.meta.method == about["peft_type"]
            counted[shape.family, about["peft_type"]] += 1
    assert counted == {
        ("causal", "PREFIX_TUNING"): 21,
        ("causal", "CARTRIDGE"): 8,
        ("causal", "PROMPT_TUNING"): 8,
        ("causal", "P_TUNING"): 8,
        ("causal", "MULTITASK_PROMPT_TUNING"): 24,
        ("seq2seq", "PREFIX_TUNING"): 14,
        ("seq2seq", "CARTRIDGE"): 6,
        ("seq2seq", "PROMPT_TUNING"): 6,
        ("seq2seq", "P_TUNING"): 6,
        ("seq2seq", "MULTITASK_PROMPT_TUNING"): 12,
    }
