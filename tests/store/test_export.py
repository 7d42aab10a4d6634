"""Native files to PEFT's: there and back to the bit, and as the library itself reads them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import peft
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from prefixmux_store.convert.export import to_peft
from prefixmux_store.convert.model_config import read_shape
from prefixmux_store.convert.peft import from_peft
from prefixmux_store.errors import StoreError, UnsupportedMethod
from prefixmux_store.format import PrefixFile, PrefixMeta, RawTensor, encode, parse
from prefixmux_store.meta import METHODS
from prefixmux_store.validate import ModelShape, SiteShape
from store.makers import HIDDEN, SEQ2SEQ, SHAPE, kv, tensor

KV = ("PREFIX_TUNING", "CARTRIDGE")
EMBEDDINGS = ("PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING")
DTYPES = ("F32", "F16", "BF16")
HEADS, WIDTH = 2, 4


def shape_of(family: str, layers: int = 2) -> ModelShape:
    base = SHAPE if family == "causal" else SEQ2SEQ
    sites = {**base.sites, "decoder": SiteShape(layers, HEADS, WIDTH, WIDTH)}
    return replace(base, layers=layers, sites=sites, methods=tuple(METHODS))


def back(file: PrefixFile, shape: ModelShape) -> PrefixFile:
    made = to_peft(file, shape)
    index = 0 if file.meta.method.startswith("MULTITASK") else None
    return parse(from_peft(made.adapter_config, made.adapter_model, shape, index))


@settings(max_examples=60, deadline=None)
@given(
    family=st.sampled_from(["causal", "seq2seq"]),
    method=st.sampled_from(KV),
    layers=st.integers(1, 6),
    tokens=st.integers(1, 5),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
)
def test_keys_and_values_come_back_to_the_bit(
    family: str, method: str, layers: int, tokens: int, dtype: str, seed: int
) -> None:
    shape = shape_of(family, layers)
    made = {"decoder": tensor((layers, 2, tokens, HEADS, WIDTH), seed, dtype)}
    first = back(parse(encode(made, PrefixMeta(method=method))), shape)
    assert first.meta.method == method
    assert first.tensors["decoder"] == made["decoder"]
    assert first.offset("decoder") == tokens
    assert back(first, shape).data == first.data


@settings(max_examples=40, deadline=None)
@given(
    family=st.sampled_from(["causal", "seq2seq"]),
    method=st.sampled_from(EMBEDDINGS),
    tokens=st.integers(1, 5),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
)
def test_embeddings_come_back_to_the_bit(
    family: str, method: str, tokens: int, dtype: str, seed: int
) -> None:
    shape = shape_of(family)
    # One task of several is worked out in single precision.
    dtype = "F32" if method.startswith("MULTITASK") else dtype
    made = {"embeddings": tensor((tokens, HIDDEN), seed, dtype)}
    first = back(parse(encode(made, PrefixMeta(method=method))), shape)
    assert first.meta.method == method
    assert first.tensors["embeddings"] == made["embeddings"]
    assert back(first, shape).data == first.data


@pytest.mark.parametrize(
    ("meta", "names", "family", "said"),
    [
        (PrefixMeta(), ("encoder",), "seq2seq", "has encoder too"),
        (PrefixMeta(), ("decoder", "cross"), "seq2seq", "has cross too"),
        (PrefixMeta(position_offset={"decoder": 0}), ("decoder",), "causal", "leaves them"),
        (PrefixMeta(position_offset={"decoder": 0}), ("decoder",), "seq2seq", "leaves them"),
        (PrefixMeta(method="INFIX_TUNING"), ("decoder",), "causal", "no form for INFIX_TUNING"),
        (PrefixMeta(method="TEXT", token_ids=(1, 2)), (), "causal", "no form for TEXT"),
    ],
)
def test_what_peft_cannot_express_is_refused_by_name(
    meta: PrefixMeta, names: tuple[str, ...], family: str, said: str
) -> None:
    shape = shape_of(family)
    made = {name: tensor((shape.sites[name].layers, 2, 3, HEADS, WIDTH)) for name in names}
    with pytest.raises(UnsupportedMethod, match=said):
        to_peft(parse(encode(made, meta)), shape)


def test_a_prefix_of_another_model_is_not_written() -> None:
    with pytest.raises(StoreError) as caught:
        to_peft(parse(encode({"decoder": kv()}, PrefixMeta())), shape_of("causal", 3))
    assert caught.value.code == "incompatible_prefix"


def tiny(family: str, layers: int) -> Any:
    torch.manual_seed(0)
    if family == "causal":
        about = transformers.GPT2Config(
            n_layer=layers, n_head=HEADS, n_embd=HEADS * WIDTH, vocab_size=19, n_positions=32
        )
        return transformers.GPT2LMHeadModel(about).eval()
    bart = transformers.BartConfig(
        encoder_layers=2,
        decoder_layers=layers,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=8,
        decoder_ffn_dim=8,
        d_model=HEADS * WIDTH,
        vocab_size=19,
        max_position_embeddings=32,
    )
    return transformers.BartForConditionalGeneration(bart).eval()


def loaded(folder: Path, file: PrefixFile, shape: ModelShape, model: Any) -> Any:
    """The real library's model with the exported adapter."""
    made = to_peft(file, shape)
    (folder / "adapter_config.json").write_bytes(made.adapter_config)
    (folder / "adapter_model.safetensors").write_bytes(made.adapter_model)
    return peft.PeftModel.from_pretrained(model, str(folder)).eval()


def narrow(shape: ModelShape) -> ModelShape:
    """Of the tiny models: embeddings as wide as all heads together."""
    return replace(shape, hidden=HEADS * WIDTH)


# What the libraries say to each other.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("method", KV)
@pytest.mark.parametrize(("family", "layers"), [("causal", 3), ("seq2seq", 2), ("seq2seq", 3)])
def test_the_library_gives_each_layer_its_keys_and_values(
    tmp_path: Path, family: str, layers: int, method: str
) -> None:
    values = tensor((layers, 2, 5, HEADS, WIDTH), 3)
    file = parse(encode({"decoder": values}, PrefixMeta(method=method)))
    model = loaded(tmp_path, file, narrow(shape_of(family, layers)), tiny(family, layers))
    cache = model.get_prompt(batch_size=1)
    own = cache.self_attention_cache if family == "seq2seq" else cache
    for layer in range(layers):
        keys, found = own.layers[layer].keys[0], own.layers[layer].values[0]
        expected = values.floats()[layer].transpose(0, 2, 1, 3)
        np.testing.assert_array_equal(keys.detach().numpy(), expected[0])
        np.testing.assert_array_equal(found.detach().numpy(), expected[1])
    assert generated(model, family).shape[0] == 1


# What the libraries say to each other.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("method", EMBEDDINGS)
@pytest.mark.parametrize("family", ["causal", "seq2seq"])
def test_the_library_reads_the_embeddings(tmp_path: Path, family: str, method: str) -> None:
    values = tensor((4, HEADS * WIDTH), 3)
    file = parse(encode({"embeddings": values}, PrefixMeta(method=method)))
    shape = narrow(shape_of(family))
    model = loaded(tmp_path, file, shape, tiny(family, 2))
    task = torch.tensor([0]) if method.startswith("MULTITASK") else None
    prompt = model.get_prompt(batch_size=1, task_ids=task)
    np.testing.assert_array_equal(prompt[0].detach().numpy(), values.floats())
    assert generated(model, family, task).shape[0] == 1


def generated(model: Any, family: str, task: torch.Tensor | None = None) -> torch.Tensor:
    more = {} if task is None else {"task_ids": task}
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        made = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=4,
            do_sample=False,
            pad_token_id=0,
            **more,
        )
    return cast(torch.Tensor, made)


@pytest.mark.shared
def test_every_adapter_of_the_reference_data_comes_back_to_the_bit(shared: Path) -> None:
    golden, seen = shared / "golden", 0
    for folder in sorted((golden / "adapters").iterdir()):
        if not (folder / "adapter_config.json").is_file():
            continue
        raw = (folder / "adapter_config.json").read_bytes()
        about = json.loads(raw)
        model = golden / about["base_model_name_or_path"] / "config.json"
        shape = read_shape(model.read_bytes())
        task = 0 if about["peft_type"].startswith("MULTITASK") else None
        weights = (folder / "adapter_model.safetensors").read_bytes()
        file = parse(from_peft(raw, weights, shape, task))
        assert back(file, shape).data == file.data
        seen += 1
    assert seen == 91


def test_raw_tensors_compare_by_content() -> None:
    one = RawTensor("F32", (1,), memoryview(b"\0\0\0\0"))
    assert one == RawTensor("F32", (1,), memoryview(bytearray(4)))
    assert one != RawTensor("F32", (1,), memoryview(b"\0\0\0\1"))
