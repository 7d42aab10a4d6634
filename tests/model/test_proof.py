"""What the proof at load time catches in models of both families, and what it lets through.

Each case changes one thing that our steps rely on. The model must then be refused, or, where only
virtual tokens go wrong, be served without the methods that need them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from model.configs import EVERY, SEQ2SEQ, WINDOWED
from model.conftest import Saved
from support.tiny import LAYOUTS
from torch import Tensor, nn
from transformers.models.bart.modeling_bart import BartEncoder, BartLearnedPositionalEmbedding
from transformers.models.gemma3.modeling_gemma3 import Gemma3TextModel
from transformers.models.t5.modeling_t5 import T5Attention

from prefixmux_server.attention.rules import ScoreRules
from prefixmux_server.memory.layout import SiteSpec
from prefixmux_server.memory.memory import KVMemory
from prefixmux_server.memory.select import LayoutName, make_memory
from prefixmux_server.model.embedding import InputEmbedding
from prefixmux_server.model.errors import UnsupportedModelError
from prefixmux_server.model.inputs import TokenInputs
from prefixmux_server.model.load import LoadedModel, load_model

CPU = torch.device("cpu")
EMBEDDED = {"PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING"}
KV = {"PREFIX_TUNING", "CARTRIDGE", "TEXT"}


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> LayoutName:
    chosen: LayoutName = request.param
    return chosen


def load(folder: Path, layout: LayoutName = "rows", dtype: str = "float32") -> LoadedModel:
    def memory(specs: Mapping[str, SiteSpec], kind: torch.dtype) -> KVMemory:
        return make_memory(layout, specs, 512, kind, CPU, poison=True)

    return load_model(folder, CPU, dtype, memory)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", [*WINDOWED, *SEQ2SEQ])
def test_what_is_untouched_is_served_whole(
    family: str, dtype: str, layout: LayoutName, saved: Saved
) -> None:
    name = f"{family} with windows" if family in WINDOWED else family
    loaded = load(saved(name), layout, dtype)
    infixes = set() if family in SEQ2SEQ else {"INFIX_TUNING", "INFIX_EMBEDDING"}
    assert set(loaded.methods) == KV | EMBEDDED | infixes
    assert loaded.left_out == {}


RULES: dict[str, tuple[Iterable[str], dict[str, Any]]] = {
    "no window": (WINDOWED, {"window": None}),
    "a window one longer": (WINDOWED, {"window": 7}),  # it is proven with 6
    "no cap": (["gemma2"], {"softcap": None}),
    "no bias": (["t5", "mt5"], {"bias": None}),
}
FORGOTTEN = [(kind, family) for kind, (families, _) in RULES.items() for family in families]


@pytest.mark.parametrize(("kind", "family"), FORGOTTEN)
def test_a_rule_that_the_backend_forgets(
    kind: str, family: str, layout: LayoutName, saved: Saved
) -> None:
    _, changed = RULES[kind]

    def forgetful(rule: ScoreRules) -> ScoreRules:
        return rule if rule.plain else replace(rule, **_where_set(rule, changed))

    def memory(specs: Mapping[str, SiteSpec], kind: torch.dtype) -> KVMemory:
        sites = {
            site: replace(spec, rules=tuple(map(forgetful, spec.rules)))
            for site, spec in specs.items()
        }
        return make_memory(layout, sites, 512, kind, CPU, poison=True)

    name = f"{family} with windows" if family in WINDOWED else family
    with pytest.raises(UnsupportedModelError, match="gives other logits"):
        load_model(saved(name), CPU, "float32", memory)


def _where_set(rule: ScoreRules, changed: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in changed.items() if getattr(rule, name) is not None}


@pytest.mark.parametrize("site", ["encoder", "decoder", "cross"])
@pytest.mark.parametrize("family", SEQ2SEQ)
def test_a_site_whose_prefix_is_not_seen(family: str, site: str, saved: Saved) -> None:
    """Whatever the reason: a prefix at any site must count."""

    class Blind(KVMemory):
        def place(self, kv: Any) -> Any:
            kept = {name: tensor for name, tensor in kv.sites.items() if name != site}
            return super().place(replace(kv, sites=kept))

    def memory(specs: Mapping[str, SiteSpec], kind: torch.dtype) -> KVMemory:
        whole = make_memory("rows", specs, 512, kind, CPU, poison=True)
        return Blind(whole.layouts, specs.get("encoder"))

    with pytest.raises(UnsupportedModelError, match="gives other logits"):
        load_model(saved(family), CPU, "float32", memory)


class TestCodeThatDoesMoreThanItTells:
    def test_positions_that_cannot_be_set(
        self, saved: Saved, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As in some families: positions counted from the batch, whatever anybody says."""

        def counted(self: Any, input_ids: Tensor, past: int = 0, **_: object) -> Tensor:
            positions = torch.arange(past, past + input_ids.shape[1]) + self.offset
            return nn.functional.embedding(positions, self.weight)[None]

        monkeypatch.setattr(BartLearnedPositionalEmbedding, "forward", counted)
        with pytest.raises(UnsupportedModelError, match="gives other logits"):
            load(saved("bart"))

    def test_code_that_cannot_run_several_rows_at_once(
        self, saved: Saved, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = BartLearnedPositionalEmbedding.forward

        def small(self: Any, *args: Any, position_ids: Tensor | None = None) -> Any:
            if position_ids is not None and len(position_ids) > 9:
                raise RuntimeError("too many")
            return original(self, *args, position_ids=position_ids)

        monkeypatch.setattr(BartLearnedPositionalEmbedding, "forward", small)
        with pytest.raises(UnsupportedModelError, match="ragged batch: RuntimeError"):
            load(saved("bart"))

    def test_a_bias_that_is_not_by_distance(
        self, saved: Saved, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = T5Attention.compute_bias

        def leaning(self: Any, query_length: int, key_length: int, *args: Any, **kw: Any) -> Tensor:
            bias: Tensor = original(self, query_length, key_length, *args, **kw)
            return bias + torch.arange(query_length)[:, None]

        monkeypatch.setattr(T5Attention, "compute_bias", leaning)
        with pytest.raises(UnsupportedModelError, match=r"not one by distance|every distance"):
            load(saved("t5"))

    def test_a_bias_without_end(self, saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
        original = T5Attention.compute_bias

        def endless(self: Any, query_length: int, key_length: int, *args: Any, **kw: Any) -> Tensor:
            bias: Tensor = original(self, query_length, key_length, *args, **kw)
            distance = torch.arange(key_length)[None, :] - torch.arange(query_length)[:, None]
            return bias - distance.abs() * 0.01

        monkeypatch.setattr(T5Attention, "compute_bias", endless)
        with pytest.raises(UnsupportedModelError, match="changes with every distance"):
            load(saved("t5"))


class TestEmbeddingsThatMeanSomethingElse:
    """A model that treats them in its own way still serves prefixes, and says what it does not."""

    def refuse_embeddings(
        self, monkeypatch: pytest.MonkeyPatch, kind: type[nn.Module], factor: float
    ) -> None:
        original = kind.forward

        def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if kwargs.get("inputs_embeds") is not None:
                kwargs["inputs_embeds"] = kwargs["inputs_embeds"] * factor
            return original(self, *args, **kwargs)

        monkeypatch.setattr(kind, "forward", forward)

    @pytest.mark.parametrize(
        ("family", "kind", "infixes"),
        [
            ("bart", BartEncoder, set()),
            ("gemma3_text with windows", Gemma3TextModel, {"INFIX_EMBEDDING"}),
        ],
    )
    def test_left_out_with_a_reason(
        self,
        family: str,
        kind: type[nn.Module],
        infixes: set[str],
        saved: Saved,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.refuse_embeddings(monkeypatch, kind, 1.7)
        loaded = load(saved(family))
        assert set(loaded.left_out) == EMBEDDED | infixes
        assert not set(loaded.methods) & set(loaded.left_out)
        assert set(loaded.methods) >= KV
        assert all("token ids" in reason for reason in loaded.left_out.values())

    def test_a_model_that_takes_none(self, saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
        original = BartEncoder.forward

        def forward(self: Any, input_ids: Tensor | None = None, **kwargs: Any) -> Any:
            if input_ids is None:
                raise ValueError("ids, please")
            return original(self, input_ids=input_ids, **kwargs)

        monkeypatch.setattr(BartEncoder, "forward", forward)
        assert set(load(saved("bart")).left_out) == EMBEDDED

    @pytest.mark.parametrize("family", ["llama", "pegasus"])
    def test_virtual_tokens_that_get_lost_on_our_side(
        self, family: str, saved: Saved, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = InputEmbedding._embed

        def careless(self: InputEmbedding, tokens: TokenInputs) -> Tensor:
            return original(self, replace(tokens, embeddings={}))

        monkeypatch.setattr(InputEmbedding, "_embed", careless)
        loaded = load(saved(family))
        assert set(loaded.left_out) >= EMBEDDED
        assert all("beside embeddings" in reason for reason in loaded.left_out.values())

    def test_neighbours_that_lose_their_scale(
        self, saved: Saved, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Only tokens beside virtual ones enter unscaled, not all of the step."""

        def everywhere(self: InputEmbedding, tokens: TokenInputs) -> Tensor:
            return torch.ones(len(tokens.token_ids), 1)

        monkeypatch.setattr(InputEmbedding, "_factors", everywhere)
        assert set(load(saved("pegasus")).left_out) == EMBEDDED
        assert set(load(saved("bart")).left_out) == set()

    def test_a_factor_that_is_found_is_no_reason(
        self, saved: Saved, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ids are then scaled by the root of the width where embeddings are not."""
        self.refuse_embeddings(monkeypatch, BartEncoder, 32**-0.5)
        assert set(load(saved("bart")).methods) >= EMBEDDED


def test_the_window_of_a_config_is_given_back(saved: Saved) -> None:
    for name in EVERY:
        if "windows" in name:
            assert load(saved(name)).module.config.sliding_window == 7
