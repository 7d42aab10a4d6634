"""Which models are served: what is proven. All others are refused, and the message says why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.engines import answer, make_engine
from support.models import FAMILIES, load_folder, save_tiny
from support.reference import greedy, load_reference
from support.tiny import ask
from torch import Tensor, nn
from transformers import (
    BloomConfig,
    GPTJConfig,
    GPTNeoConfig,
    LlamaConfig,
    PreTrainedConfig,
)
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding

from prefixmux_server.memory.layout import SiteSpec
from prefixmux_server.memory.memory import KVMemory
from prefixmux_server.memory.select import LayoutName, make_memory
from prefixmux_server.model.errors import UnsupportedModelError
from prefixmux_server.model.load import load_model

COMMON = {"vocab_size": 97, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
WIDTHS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
GATED = {"intermediate_size": 64, "max_position_embeddings": 256, **WIDTHS, **COMMON}
# Short factors until some row of the batch is far, then long ones for all of them.
LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "original_max_position_embeddings": 64,
}
OTHER_ROPES = (
    {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
    {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
)

REFUSED: dict[str, tuple[Callable[[], PreTrainedConfig], str]] = {
    "bloom": (lambda: BloomConfig(n_layer=2, n_head=4, **{**WIDTHS, **COMMON}), "Bloom"),
    "gptj": (
        lambda: GPTJConfig(n_embd=32, n_layer=2, n_head=4, rotary_dim=8, **COMMON),
        "attention interface",
    ),
    "gpt_neo": (
        lambda: GPTNeoConfig(
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            attention_types=[[["global"], 2]],
            **COMMON,
        ),
        "attention interface",
    ),
    "positions that depend on the other rows": (
        lambda: LlamaConfig(num_key_value_heads=2, rope_parameters=LONG_ROPE, **GATED),
        "other logits",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_and_why(name: str, tmp_path: Path) -> None:
    make, cause = REFUSED[name]
    folder = tmp_path / "model"
    save_tiny(make(), folder, scale=1.0)
    with pytest.raises(UnsupportedModelError, match=cause):
        load_folder(folder)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_served(
    family: str, dtype: str, layout: LayoutName, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With prefixes, mixed; in 32 bits token for token what the model itself says."""
    folder = save_tiny(FAMILIES[family](), tmp_path_factory.mktemp(family))
    loaded = load_folder(folder, dtype=dtype)
    parts = make_engine(loaded, layout)
    reference = load_reference(folder)
    spec = loaded.specs["decoder"]
    prefix = torch.randn(spec.layers, 2, 5, spec.kv_heads, spec.k_dim)
    parts.source.add("a", prefix.to(loaded.module.dtype))
    requests = [ask("bare", tokens=9), ask("task", "a", tokens=4), ask("one", "a", tokens=1)]
    answers = answer(parts.engine, requests)
    for request in requests:
        assert answers.finished[request.id].reason == "length"
        if dtype == "float32":
            kv = prefix if request.prefixes else None
            wanted = greedy(reference, request.input_ids, 8, kv)
            assert answers.tokens[request.id] == wanted


class TestTamperedModels:
    """Code that does something in its own attention that ours would not."""

    def load(self, folder: Path, layout: LayoutName, dtype: str = "float32") -> None:
        def trial(specs: Mapping[str, SiteSpec], kind: torch.dtype) -> KVMemory:
            return make_memory(layout, specs, 512, kind, torch.device("cpu"), poison=True)

        load_model(folder, torch.device("cpu"), dtype, trial)

    def test_untouched(self, llama: Path, layout: LayoutName) -> None:
        self.load(llama, layout)
        self.load(llama, layout, "bfloat16")

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_a_bias_in_the_mask(
        self, llama: Path, layout: LayoutName, dtype: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """ALiBi as some models have it: added where there is a mask, lost where there is none."""
        original = LlamaAttention.forward

        def biased(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            mask = kwargs.get("attention_mask")
            if isinstance(mask, Tensor):
                kwargs["attention_mask"] = mask + 0.5 * torch.arange(mask.shape[-1])
            return original(self, *args, **kwargs)

        monkeypatch.setattr(LlamaAttention, "forward", biased)
        with pytest.raises(UnsupportedModelError, match="other logits"):
            self.load(llama, layout, dtype)

    def test_positions_of_its_own(
        self, llama: Path, layout: LayoutName, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Positions counted from the batch, whatever it is told."""
        original = LlamaRotaryEmbedding.forward

        def counted(self: nn.Module, x: Tensor, position_ids: Tensor) -> Any:
            return original(self, x, torch.arange(position_ids.shape[-1])[None])

        monkeypatch.setattr(LlamaRotaryEmbedding, "forward", counted)
        with pytest.raises(UnsupportedModelError, match="other logits"):
            self.load(llama, layout)

    def test_positions_that_are_shifted_by_one_behind_a_cache(
        self, llama: Path, layout: LayoutName, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = LlamaAttention.forward

        def shifted(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if kwargs.get("past_key_values") is not None:
                cos, sin = kwargs["position_embeddings"]
                kwargs["position_embeddings"] = (cos.roll(1, 1), sin.roll(1, 1))
            return original(self, *args, **kwargs)

        monkeypatch.setattr(LlamaAttention, "forward", shifted)
        with pytest.raises(UnsupportedModelError, match="other logits"):
            self.load(llama, layout)

    def test_a_layer_that_skips_our_attention(
        self, llama: Path, layout: LayoutName, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = LlamaAttention.forward

        def skipping(self: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
            if self.layer_idx == 1:
                return hidden_states, None
            return original(self, hidden_states, *args, **kwargs)

        monkeypatch.setattr(LlamaAttention, "forward", skipping)
        with pytest.raises(UnsupportedModelError, match="1 of them use the attention interface"):
            self.load(llama, layout)

    def test_keywords_that_get_lost(
        self, llama: Path, layout: LayoutName, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = LlamaAttention.forward

        def deaf(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            kwargs.pop("prefixmux_step", None)
            return original(self, *args, **kwargs)

        monkeypatch.setattr(LlamaAttention, "forward", deaf)
        with pytest.raises(UnsupportedModelError, match="drops keyword arguments"):
            self.load(llama, layout)


@pytest.mark.parametrize("rope", OTHER_ROPES, ids=lambda rope: str(rope["rope_type"]))
def test_scaled_positions_are_served(
    rope: dict[str, Any], layout: LayoutName, tmp_path: Path
) -> None:
    """A row's positions are its own, however far another one is."""
    config = LlamaConfig(num_key_value_heads=2, rope_parameters=rope, **GATED)
    folder = save_tiny(config, tmp_path)
    requests = [ask("short", tokens=9, new=12), ask("far", tokens=200, new=12)]
    answers = answer(make_engine(load_folder(folder), layout).engine, requests)
    for request in requests:
        wanted = greedy(load_reference(folder), request.input_ids, 12)
        assert answers.tokens[request.id] == wanted


def test_a_tied_embedding_is_not_missing(tmp_path: Path) -> None:
    folder = save_tiny(LlamaConfig(tie_word_embeddings=True, **GATED), tmp_path)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    parts = make_engine(load_folder(folder))
    request = ask("one")
    wanted = greedy(load_reference(folder), request.input_ids, 8)
    assert answer(parts.engine, [request]).tokens["one"] == wanted
