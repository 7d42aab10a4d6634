"""Which base model this is: a digest of its weights, and of its shape with them.

Hashing the weights of a large model takes a while, so the digest is remembered in a small JSON
file by path, size and modification time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

# Fields of a Hugging Face config that change what the same weights compute. Others name files,
# versions or habits of generation.
_CANONICAL = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "n_embd",
    "num_hidden_layers",
    "n_layer",
    "num_attention_heads",
    "n_head",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "n_positions",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "partial_rotary_factor",
    "layer_norm_epsilon",
    "layer_norm_eps",
    "rms_norm_eps",
    "hidden_act",
    "activation_function",
    "tie_word_embeddings",
    # Scores: windows and caps.
    "sliding_window",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "query_pre_attn_scalar",
    "rope_local_base_freq",
    # Encoder-decoder models.
    "d_model",
    "d_kv",
    "encoder_layers",
    "decoder_layers",
    "num_layers",
    "num_decoder_layers",
    "encoder_attention_heads",
    "decoder_attention_heads",
    "num_heads",
    "scale_embedding",
    "scale_decoder_outputs",
    "feed_forward_proj",
    "relative_attention_num_buckets",
    "relative_attention_max_distance",
    "decoder_vocab_size",
)
# Which layers have windows: of no meaning where none has.
_WINDOWED = "layer_types"


def weights_digest(folder: Path, cache: Path | None) -> str:
    """`sha256:<hex>` over the names and contents of the folder's safetensors files."""
    files = sorted(folder.glob("*.safetensors"))
    stats = [(file, file.stat()) for file in files]
    stamp = json.dumps([[str(f.resolve()), s.st_size, s.st_mtime_ns] for f, s in stats])
    known = _read_cache(cache)
    if stamp not in known:
        digest = hashlib.sha256()
        for file in files:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        known = {stamp: "sha256:" + digest.hexdigest()}
        _write_cache(cache, known)
    return known[stamp]


def fingerprint(architecture: str, config: Mapping[str, object], weights: str) -> str:
    """`sha256:<hex>` over the weights' digest and what decides the numbers beside them."""
    names = _CANONICAL if config.get("sliding_window") is None else (*_CANONICAL, _WINDOWED)
    known = {name: config[name] for name in names if config.get(name) is not None}
    fields = {"architecture": architecture, "weights": weights, **known}
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), default=str)
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def _read_cache(cache: Path | None) -> Mapping[str, str]:
    if cache is None:
        return {}
    try:
        known = json.loads(cache.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write_cache(cache: Path | None, known: Mapping[str, str]) -> None:
    if cache is None:
        return
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_text(json.dumps(known))
    except OSError:
        return  # only a cache: the digest is computed again next time
