"""What a dry run finds: sites, layers, head shapes and the rules of each layer's scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from model.configs import EVERY, SEQ2SEQ, WINDOW, WINDOWED
from model.conftest import Saved
from model.stories import bound
from support.models import FAMILIES, GATED, SPECIAL, save_tiny
from transformers import (
    AutoModelForSeq2SeqLM,
    BigBirdPegasusConfig,
    GptOssConfig,
    Llama4TextConfig,
    PreTrainedConfig,
    T5GemmaConfig,
)
from transformers.models.bart.modeling_bart import BartAttention
from transformers.models.llama.modeling_llama import LlamaAttention

from prefixmux_server.attention.rules import RelativeBias
from prefixmux_server.model.errors import UnsupportedModelError


@pytest.mark.parametrize("family", SEQ2SEQ)
def test_three_sites_each_with_its_own_layers_and_heads(family: str, saved: Saved) -> None:
    _, binding = bound(saved(family))
    assert {site: spec.layers for site, spec in binding.sites.items()} == {
        "encoder": 2,
        "decoder": 3,
        "cross": 3,
    }
    heads = {site: (spec.heads, spec.kv_heads) for site, spec in binding.sites.items()}
    width = 4 if "t5" in family else 2
    assert heads == {"encoder": (4, 4), "decoder": (width, width), "cross": (width, width)}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_decoder_has_one_site_and_plain_scores(family: str, saved: Saved) -> None:
    _, binding = bound(saved(family))
    assert list(binding.sites) == ["decoder"]
    assert binding.sites["decoder"].rules == ()


@pytest.mark.parametrize("family", EVERY)
def test_each_layer_of_each_site_is_one_module(family: str, saved: Saved) -> None:
    _, binding = bound(saved(family))
    places = [(site, layer) for site, spec in binding.sites.items() for layer in range(spec.layers)]
    assert sorted(binding.places.values()) == sorted(places)


@pytest.mark.parametrize(
    ("family", "windows"),
    [
        ("mistral", [WINDOW, WINDOW]),
        ("qwen2", [WINDOW, None]),
        ("gemma2", [WINDOW, None]),
        ("gemma3_text", [WINDOW, None]),
    ],
)
def test_windows_and_caps_layer_by_layer(
    family: str, windows: list[int | None], saved: Saved
) -> None:
    assert family in WINDOWED
    _, binding = bound(saved(f"{family} with windows"))
    rules = binding.sites["decoder"].rules
    assert [rule.window for rule in rules] == windows
    cap = 3.0 if family == "gemma2" else None
    assert [rule.softcap for rule in rules] == [cap, cap]


class TestRelativeBias:
    """Of T5: one table for all layers of a stack, other ones for encoder and decoder."""

    @pytest.fixture
    def biases(self, saved: Saved) -> dict[str, list[RelativeBias | None]]:
        _, binding = bound(saved("t5"))
        return {
            site: [spec.rule(n).bias for n in range(spec.layers)]
            for site, spec in binding.sites.items()
        }

    def test_shared_by_the_layers_of_a_site(
        self, biases: dict[str, list[RelativeBias | None]]
    ) -> None:
        encoder, decoder = biases["encoder"], biases["decoder"]
        assert encoder[0] is encoder[1] is not None
        assert decoder[0] is decoder[1] is decoder[2] is not None
        assert decoder[0] is not encoder[0]
        assert biases["cross"] == [None, None, None]

    @pytest.mark.parametrize("site", ["encoder", "decoder"])
    def test_equal_to_the_models_own_table(
        self, site: str, biases: dict[str, list[RelativeBias | None]], saved: Saved
    ) -> None:
        """Over more distances than the table has, so that its ends are seen to be the ends."""
        bias = biases[site][0]
        assert bias is not None
        model = AutoModelForSeq2SeqLM.from_pretrained(saved("t5"))
        stack = getattr(model, site)
        size = 4 * bias.reach
        with torch.no_grad():
            own = stack.block[0].layer[0].SelfAttention.compute_bias(size, size)[0]
        distance = torch.arange(size)[None, :] - torch.arange(size)[:, None]
        assert torch.equal(bias.table[:, distance.clamp(-bias.reach, bias.reach) + bias.reach], own)
        farther = bias.table[:, [0, 1, -2, -1]]
        assert not torch.equal(farther[:, 0], farther[:, 1]) or not torch.equal(
            farther[:, 2], farther[:, 3]
        ), "the table is longer than it need be"


REFUSED: dict[str, tuple[Callable[[], PreTrainedConfig], str]] = {
    "sinks": (
        lambda: GptOssConfig(
            head_dim=8, num_key_value_heads=2, num_local_experts=2, num_experts_per_tok=1, **GATED
        ),
        "needs s_aux",
    ),
    "chunks": (
        lambda: Llama4TextConfig(
            head_dim=8,
            num_key_value_heads=2,
            intermediate_size_mlp=64,
            num_local_experts=2,
            **GATED,
        ),
        "layers of chunked_attention",
    ),
    "an encoder with an attention of its own": (
        lambda: BigBirdPegasusConfig(
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            attention_type="original_full",
            **SPECIAL,
        ),
        "0 of them use the attention interface",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_by_name(kind: str, tmp_path: Path) -> None:
    make, cause = REFUSED[kind]
    with pytest.raises(UnsupportedModelError, match=cause):
        bound(save_tiny(make(), tmp_path, scale=1.0))


def test_an_encoder_with_windows_is_refused(tmp_path: Path) -> None:
    part = {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 4, **GATED}
    config = T5GemmaConfig(encoder=part, decoder=part, vocab_size=SPECIAL["vocab_size"])
    with pytest.raises(UnsupportedModelError, match="only decoder-only models may have"):
        bound(save_tiny(config, tmp_path, scale=1.0))


@pytest.mark.parametrize("family", ["llama", "bart"])
def test_a_feature_nobody_knows_is_refused(
    family: str, saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = {"llama": LlamaAttention, "bart": BartAttention}[family]
    original = kind.forward

    def forward(self: torch.nn.Module, *args: object, **kwargs: object) -> object:
        return original(self, *args, **kwargs, score_temperature=2.0)

    monkeypatch.setattr(kind, "forward", forward)
    with pytest.raises(UnsupportedModelError, match="needs score_temperature"):
        bound(saved(family))
