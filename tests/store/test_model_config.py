"""A model's own config.json, by every family's names for the same sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers

from prefixmux_store.convert.model_config import read_shape
from prefixmux_store.errors import StoreError
from prefixmux_store.validate import SiteShape

# Layers, KV heads and head width of the decoder and, if there is one, of the encoder.
GOLDEN = {
    "gpt2": ((2, 4, 8), None),
    "opt": ((3, 2, 16), None),
    "gpt_neox": ((2, 6, 8), None),
    "phi": ((2, 4, 8), None),
    "llama": ((3, 2, 8), None),
    "mistral": ((2, 4, 8), None),
    "qwen2": ((2, 2, 8), None),
    "qwen3": ((2, 1, 16), None),
    "bart": ((2, 4, 8), (2, 4, 8)),
    "mbart": ((3, 4, 8), (3, 4, 8)),
    "pegasus": ((2, 2, 16), (3, 2, 16)),
    "marian": ((2, 5, 8), (2, 5, 8)),
    "t5": ((3, 4, 8), (3, 4, 8)),
    "mt5": ((2, 4, 16), (2, 4, 16)),
}


def site(sizes: tuple[int, int, int]) -> SiteShape:
    layers, heads, width = sizes
    return SiteShape(layers, heads, width, width)


@pytest.mark.shared
@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_every_model_of_the_reference_data(shared: Path, name: str) -> None:
    shape = read_shape((shared / "golden" / "models" / name / "config.json").read_bytes())
    decoder, encoder = GOLDEN[name]
    sites = {"decoder": site(decoder)}
    if encoder is not None:
        sites |= {"encoder": site(encoder), "cross": site(decoder)}
    assert shape.sites == sites
    assert shape.family == ("causal" if encoder is None else "seq2seq")
    assert (shape.layers, shape.kv_heads, shape.head_dim) == decoder
    assert shape.vocabulary == 101


def test_layers_and_heads_that_differ_are_told_apart() -> None:
    bart = transformers.BartConfig(
        encoder_layers=3,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=2,
        d_model=16,
    )
    shape = read_shape(bart.to_json_string(use_diff=False).encode())
    assert shape.sites["encoder"] == site((3, 4, 4))
    assert shape.sites["decoder"] == shape.sites["cross"] == site((2, 2, 8))
    t5 = transformers.T5Config(num_layers=3, num_decoder_layers=5, num_heads=2, d_model=16, d_kv=4)
    shape = read_shape(t5.to_json_string(use_diff=False).encode())
    assert shape.sites["encoder"] == site((3, 2, 4))
    assert shape.sites["decoder"] == site((5, 2, 4))


def test_embeddings_may_be_narrower_than_the_model() -> None:
    opt = transformers.OPTConfig(hidden_size=16, word_embed_proj_dim=8, num_attention_heads=2)
    shape = read_shape(opt.to_json_string(use_diff=False).encode())
    assert (shape.hidden, shape.embedding_width) == (16, 8)


def test_the_language_model_of_several_parts_counts() -> None:
    text = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 3, "vocab_size": 9}
    shape = read_shape(json.dumps({"vision_config": {}, "text_config": text}).encode())
    assert shape.sites == {"decoder": site((3, 2, 4))}


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "invalid_prefix"),
        (b"[]", "invalid_prefix"),
        (b"{}", "invalid_request"),
        (b'{"hidden_size": 8, "num_attention_heads": 2}', "invalid_request"),
        (b'{"hidden_size": "8"}', "invalid_request"),
        (b'{"hidden_size": true, "n_embd": 0}', "invalid_request"),
    ],
)
def test_what_is_no_language_model_is_refused(raw: bytes, code: str) -> None:
    with pytest.raises(StoreError) as caught:
        read_shape(raw)
    assert caught.value.code == code
