"""Tiny configs of odd shapes: encoder and decoder differ in layers and heads wherever they may."""

from __future__ import annotations

from collections.abc import Callable

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

Make = Callable[[], PreTrainedConfig]

POSITIONS = 64
_BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": POSITIONS,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
    "tie_word_embeddings": False,  # tied, a random model repeats what it is given
    **SPECIAL,
}
_T5 = {
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 48,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "relative_attention_num_buckets": 16,
    "relative_attention_max_distance": 24,
    "decoder_start_token_id": 0,
    "tie_word_embeddings": False,
    **SPECIAL,
}
_LOCAL = {"num_key_value_heads": 2, **GATED}
_ALTERNATE = ["sliding_attention", "full_attention"]

SEQ2SEQ: dict[str, Make] = {
    "bart": lambda: BartConfig(**_BART),
    "mbart": lambda: MBartConfig(scale_embedding=True, **_BART),
    "pegasus": lambda: PegasusConfig(scale_embedding=True, **_BART),
    "marian": lambda: MarianConfig(scale_embedding=True, **_BART),
    "t5": lambda: T5Config(**_T5),
    "mt5": lambda: MT5Config(feed_forward_proj="gated-gelu", **_T5),
}

WINDOW = 7
WINDOWED: dict[str, Make] = {
    "mistral": lambda: MistralConfig(sliding_window=WINDOW, **_LOCAL),
    "qwen2": lambda: Qwen2Config(
        use_sliding_window=True, sliding_window=WINDOW, layer_types=_ALTERNATE, **_LOCAL
    ),
    "gemma2": lambda: Gemma2Config(
        sliding_window=WINDOW,
        attn_logit_softcapping=3.0,
        query_pre_attn_scalar=8,
        head_dim=8,
        **_LOCAL,
    ),
    "gemma3_text": lambda: Gemma3TextConfig(
        sliding_window=WINDOW, layer_types=_ALTERNATE, head_dim=8, **_LOCAL
    ),
}

CAUSAL: dict[str, Make] = {**PLAIN, **{f"{name} with windows": m for name, m in WINDOWED.items()}}
EVERY: dict[str, Make] = {**CAUSAL, **SEQ2SEQ}
