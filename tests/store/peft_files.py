"""PEFT's two files, made by hand, for tests of what reads them."""

from __future__ import annotations

import json

from prefixmux_store import container
from prefixmux_store.format import RawTensor


def config_file(method: str, family: str, **changes: object) -> bytes:
    """What PEFT 0.21 writes; a change to `...` leaves the key out."""
    seq2seq = family == "seq2seq"
    content: dict[str, object] = {
        "auto_mapping": None,
        "base_model_name_or_path": "models/tiny",
        "inference_mode": True,
        "modules_to_save": None,
        "num_attention_heads": 2,
        "num_layers": 2,
        "num_transformer_submodules": 2 if seq2seq else 1,
        "num_virtual_tokens": 3,
        "peft_type": method,
        "peft_version": "0.21.2",
        "revision": None,
        "task_type": "SEQ_2_SEQ_LM" if seq2seq else "CAUSAL_LM",
        "token_dim": 8,
        **changes,
    }
    return json.dumps({key: value for key, value in content.items() if value is not ...}).encode()


def weights_file(**tensors: RawTensor) -> bytes:
    return container.write(tensors, {"format": "pt"})
