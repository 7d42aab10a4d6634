"""What makes two models different ones beside their weights."""

from __future__ import annotations

from typing import Any

import pytest
from model.configs import EVERY
from support.models import FAMILIES

from prefixmux_server.model.fingerprint import fingerprint


def of(config: dict[str, Any]) -> str:
    return fingerprint("Model", config, "sha256:0")


@pytest.mark.parametrize(
    ("family", "field", "value"),
    [
        ("gpt2", "n_head", 8),
        ("llama", "rms_norm_eps", 0.5),
        ("mistral with windows", "sliding_window", 8),
        ("qwen2 with windows", "layer_types", ["full_attention", "sliding_attention"]),
        ("gemma2 with windows", "attn_logit_softcapping", 4.0),
        ("gemma2 with windows", "query_pre_attn_scalar", 9),
        ("mbart", "scale_embedding", False),
        ("bart", "decoder_attention_heads", 4),
        ("t5", "relative_attention_max_distance", 25),
        ("mt5", "feed_forward_proj", "gated-silu"),
    ],
)
def test_what_changes_the_numbers(family: str, field: str, value: Any) -> None:
    config = EVERY[family]().to_dict()
    assert config[field] != value
    assert of(config) != of(config | {field: value})


@pytest.mark.parametrize("family", EVERY)
def test_habits_and_names_change_nothing(family: str) -> None:
    config = EVERY[family]().to_dict()
    habits = {"use_cache": False, "dtype": "bfloat16", "eos_token_id": 7, "_name_or_path": "x"}
    assert of(config) == of(config | habits)


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_without_windows_are_not_told_apart(family: str) -> None:
    config = EVERY[family]().to_dict()
    assert of(config) == of(config | {"layer_types": ["full_attention"]})
