"""A model's config.json to the shape that prefixes are measured against; reads no weights."""

from __future__ import annotations

from collections.abc import Mapping

from prefixmux_store.convert.config_files import load_object, plain
from prefixmux_store.errors import InvalidRequest
from prefixmux_store.meta import METHODS
from prefixmux_store.validate import ModelShape, SiteShape

NAME = "the model's config.json"

# Each family calls its sizes by names of its own; the first that is there counts.
_HIDDEN = ("d_model", "hidden_size", "n_embd")
_DECODER_LAYERS = (
    *("decoder_layers", "num_decoder_layers", "num_hidden_layers", "n_layer", "num_layers"),
)
_ENCODER_LAYERS = ("encoder_layers", "num_layers", "num_hidden_layers")
_DECODER_HEADS = ("decoder_attention_heads", "num_attention_heads", "n_head", "num_heads")
_ENCODER_HEADS = ("encoder_attention_heads", "num_heads", "num_attention_heads")


def read_shape(raw: bytes) -> ModelShape:
    """Without a fingerprint; every method, any number of tokens. Raises `InvalidPrefix` for what
    is no JSON, `InvalidRequest` for a config without the sizes."""
    whole = load_object(raw, NAME)
    text = whole.get("text_config")
    content = text if isinstance(text, dict) else whole
    hidden, heads = _size(content, _HIDDEN), _size(content, _DECODER_HEADS)
    kv_heads = _given(content, "num_key_value_heads") or heads
    width = _given(content, "d_kv") or _given(content, "head_dim") or hidden // heads
    layers = _size(content, _DECODER_LAYERS)
    sites = {"decoder": SiteShape(layers, kv_heads, width, width)}
    seq2seq = whole.get("is_encoder_decoder") is True
    if seq2seq:
        encoder_heads = _size(content, _ENCODER_HEADS)
        other = _given(content, "d_kv") or hidden // encoder_heads
        encoder_layers = _size(content, _ENCODER_LAYERS)
        sites["encoder"] = SiteShape(encoder_layers, encoder_heads, other, other)
        sites["cross"] = sites["decoder"]
    return ModelShape(
        architecture=_architecture(whole),
        family="seq2seq" if seq2seq else "causal",
        layers=layers,
        kv_heads=kv_heads,
        head_dim=width,
        hidden=hidden,
        vocabulary=_size(content, ("vocab_size",)),
        fingerprint=None,
        methods=tuple(sorted(METHODS)),
        sites=sites,
        max_prefix_tokens=2**31,
        embedding_width=_given(content, "word_embed_proj_dim"),
    )


def _architecture(content: Mapping[str, object]) -> str:
    named = content.get("architectures")
    return plain(named[0], 80) if isinstance(named, list) and named else "unknown"


def _size(content: Mapping[str, object], names: tuple[str, ...]) -> int:
    for name in names:
        if value := _given(content, name):
            return value
    message = f"{NAME} has none of {', '.join(names)}: is it the folder of a language model?"
    raise InvalidRequest(message, param="model")


def _given(content: Mapping[str, object], name: str) -> int | None:
    value = content.get(name)
    return value if type(value) is int and value > 0 else None
