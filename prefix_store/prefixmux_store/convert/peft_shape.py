"""The model that a PEFT adapter says it is for, where nobody has named one."""

from __future__ import annotations

from prefixmux_store.convert.config_files import load_object
from prefixmux_store.convert.peft_config import KV_METHODS, NAME, read_config
from prefixmux_store.errors import InvalidRequest
from prefixmux_store.meta import METHODS
from prefixmux_store.validate import ModelShape, SiteShape


def shape_of_adapter(raw: bytes) -> ModelShape:
    """A shape that the adapter fits, so that only its own contradictions are found.

    Raises as `read_config` does, and `InvalidRequest` where the adapter does not say enough: keys
    and values of an encoder-decoder model depend on its number of decoder layers.
    """
    seq2seq = load_object(raw, NAME).get("task_type") == "SEQ_2_SEQ_LM"
    family = "seq2seq" if seq2seq else "causal"
    config = read_config(raw, family)
    kv = config.method in KV_METHODS
    if seq2seq and kv:
        raise InvalidRequest(
            "Name the folder of the model that the prefix is for: the adapter does not say how"
            " many layers its decoder has.",
            param="model",
        )
    hidden = config.size("token_dim")
    heads = config.size("num_attention_heads") if kv else 1
    layers = config.size("num_layers") if kv else 1
    width = hidden // heads
    return ModelShape(
        architecture="unknown",
        family=family,
        layers=layers,
        kv_heads=heads,
        head_dim=width,
        hidden=hidden,
        vocabulary=1,
        fingerprint=None,
        methods=tuple(sorted(METHODS)),
        sites={"decoder": SiteShape(layers, heads, width, width)},
        max_prefix_tokens=2**31,
    )
