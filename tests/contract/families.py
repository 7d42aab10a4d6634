"""Every family that is served. A new one is one line here: a tiny config and its sites."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from support.models import FAMILIES as PLAIN
from support.models import GATED, SPECIAL
from transformers import (
    BartConfig,
    Gemma2Config,
    Gemma3TextConfig,
    MarianConfig,
    MBartConfig,
    MistralConfig,
    MT5Config,
    PegasusConfig,
    PreTrainedConfig,
    Qwen2Config,
    T5Config,
)

WINDOW = 8
DECODER = ("decoder",)
ALL = ("encoder", "decoder", "cross")

_LOCAL = {**GATED, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": WINDOW}
_LAYERS = ["sliding_attention", "full_attention"]
_START = {**SPECIAL, "decoder_start_token_id": 2}
_BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 512,
    **_START,
}
_T5 = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "initializer_factor": 0.5,
    **_START,
}


@dataclass(frozen=True)
class Family:
    """`sites` are the attention sites that the model is expected to have."""

    config: Callable[[], PreTrainedConfig]
    sites: tuple[str, ...]


FAMILIES = {
    **{name: Family(config, DECODER) for name, config in PLAIN.items()},
    "mistral-window": Family(lambda: MistralConfig(**_LOCAL), DECODER),
    "qwen2-window": Family(
        lambda: Qwen2Config(**_LOCAL, use_sliding_window=True, layer_types=_LAYERS), DECODER
    ),
    "gemma2": Family(
        lambda: Gemma2Config(**_LOCAL, attn_logit_softcapping=3.0, query_pre_attn_scalar=8), DECODER
    ),
    "gemma3_text": Family(
        lambda: Gemma3TextConfig(**_LOCAL, layer_types=_LAYERS, query_pre_attn_scalar=8), DECODER
    ),
    "bart": Family(lambda: BartConfig(**_BART), ALL),
    "mbart": Family(lambda: MBartConfig(**_BART, scale_embedding=True), ALL),
    "pegasus": Family(
        lambda: PegasusConfig(**{**_BART, "encoder_layers": 3}, scale_embedding=True), ALL
    ),
    "marian": Family(
        lambda: MarianConfig(**{**_BART, "encoder_attention_heads": 2}, scale_embedding=True), ALL
    ),
    "t5": Family(lambda: T5Config(**_T5, num_decoder_layers=3), ALL),
    "mt5": Family(lambda: MT5Config(**{**_T5, "d_kv": 16}), ALL),
}
