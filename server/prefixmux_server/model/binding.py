"""Hugging Face models bound to our attention: sites and layers found by a dry run, no name lists.

The encoder runs on three tokens and the decoder on two, so that the numbers of queries and keys
tell the sites apart; the order of the calls is the order of the layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel

from prefixmux_server.attention.rules import RelativeBias, ScoreRules
from prefixmux_server.memory.layout import SiteSpec
from prefixmux_server.memory.prefix import CROSS, DECODER, ENCODER
from prefixmux_server.model.errors import UnsupportedModelError, runs_here
from prefixmux_server.model.interface import ModuleAttention
from prefixmux_server.model.rules import score_rules

_ENCODER_TOKENS = 3
_DECODER_TOKENS = 2
_SITES = {
    (_ENCODER_TOKENS, _ENCODER_TOKENS): ENCODER,
    (_DECODER_TOKENS, _DECODER_TOKENS): DECODER,
    (_DECODER_TOKENS, _ENCODER_TOKENS): CROSS,
}
# Others, such as chunked attention, mask more than they tell their attention.
_LAYER_TYPES = frozenset({"full_attention", "sliding_attention"})


@dataclass(frozen=True)
class Binding:
    """The model's attention sites, and which module is which layer of which site."""

    sites: Mapping[str, SiteSpec]
    places: Mapping[nn.Module, tuple[str, int]]

    @property
    def encodes(self) -> bool:
        return ENCODER in self.sites


@dataclass(frozen=True)
class _Call:
    """One module's call: (heads, KV heads, key width, value width) and its rules."""

    module: nn.Module
    shape: tuple[int, int, int, int]
    rules: ScoreRules


class _Recorder:
    """Attention over the call's own tokens, writing down who asked for it."""

    def __init__(self) -> None:
        self.calls: dict[str, list[_Call]] = {}
        self._biases: dict[int, RelativeBias] = {}
        self._kept: list[Mapping[str, object]] = []

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float,
        features: Mapping[str, object],
    ) -> Tensor:
        site = _SITES.get((query.shape[1], key.shape[1]))
        if site is None:
            raise UnsupportedModelError(
                f"{type(module).__name__} attends to other tokens than those it is given"
            )
        self._kept.append(features)  # biases are told apart by identity: none may be freed
        rules = score_rules(module, features, self._biases)
        shape = (query.shape[0], key.shape[0], key.shape[2], value.shape[2])
        self.calls.setdefault(site, []).append(_Call(module, shape, rules))
        out = scaled_dot_product_attention(
            query[None], key[None], value[None], scale=scaling, enable_gqa=True
        )
        return out[0].transpose(0, 1)


def bind(model: PreTrainedModel) -> Binding:
    """Raises UnsupportedModelError if any layer escapes our attention (transformers only logs a
    warning for models that do not use its attention interface), or does what is not implemented.
    """
    recorder = _Recorder()
    with torch.inference_mode():
        _dry_run(model, recorder)
    name = type(model).__name__
    sites: dict[str, SiteSpec] = {}
    places: dict[nn.Module, tuple[str, int]] = {}
    for site, layers in _expected_layers(model).items():
        calls = recorder.calls.pop(site, [])
        _check_layers(name, layers, calls)
        sites[site] = _spec(name, site, calls)
        places |= {call.module: (site, layer) for layer, call in enumerate(calls)}
    if recorder.calls or len(places) != sum(spec.layers for spec in sites.values()):
        raise UnsupportedModelError(f"{name} uses attention in ways that are not served")
    _check_rules(model, sites)
    return Binding(sites, places)


def _dry_run(model: PreTrainedModel, step: ModuleAttention) -> None:
    ids = torch.zeros(1, _ENCODER_TOKENS, dtype=torch.long, device=model.device)
    few = ids[:, :_DECODER_TOKENS]
    with runs_here(type(model).__name__):
        if model.config.is_encoder_decoder:
            model(input_ids=ids, decoder_input_ids=few, use_cache=False, prefixmux_step=step)
        else:
            positions = torch.arange(_DECODER_TOKENS, device=model.device)[None]
            model(input_ids=few, position_ids=positions, use_cache=False, prefixmux_step=step)


def _expected_layers(model: PreTrainedModel) -> Mapping[str, int]:
    if not model.config.is_encoder_decoder:
        return {DECODER: int(model.config.get_text_config().num_hidden_layers)}
    encoder, decoder = _blocks(model.get_encoder()), _blocks(model.get_decoder())
    return {ENCODER: encoder, DECODER: decoder, CROSS: decoder}


def _blocks(stack: nn.Module) -> int:
    """Configs name the layers of an encoder and a decoder in too many ways: count them."""
    return max((len(m) for m in stack.children() if isinstance(m, nn.ModuleList)), default=0)


def _check_layers(name: str, expected: int, calls: Sequence[_Call]) -> None:
    found = len({call.module for call in calls})
    if not len(calls) == found == expected > 0:
        raise UnsupportedModelError(
            f"{name} has {expected} layers, but {found} of them use the attention "
            "interface of transformers: this model cannot be served"
        )


def _spec(name: str, site: str, calls: Sequence[_Call]) -> SiteSpec:
    shapes = {call.shape for call in calls}
    if len(shapes) != 1:
        raise UnsupportedModelError(f"{name} has layers of different head shapes")
    heads, kv_heads, k_dim, v_dim = shapes.pop()
    if k_dim != v_dim:
        raise UnsupportedModelError(f"{name} has keys and values of different widths")
    rules = tuple(call.rules for call in calls)
    plain = all(rule.plain for rule in rules)
    return SiteSpec(site, len(calls), heads, kv_heads, k_dim, v_dim, () if plain else rules)


def _check_rules(model: PreTrainedModel, sites: Mapping[str, SiteSpec]) -> None:
    name = type(model).__name__
    types = set(getattr(model.config.get_text_config(), "layer_types", None) or ()) - _LAYER_TYPES
    if types:
        raise UnsupportedModelError(
            f"{name} has layers of {', '.join(sorted(types))}, which is not implemented"
        )
    if not model.config.is_encoder_decoder:
        return
    rules = [rule for spec in sites.values() for rule in spec.rules]
    if any(rule.window is not None or rule.softcap is not None for rule in rules):
        raise UnsupportedModelError(
            f"{name} has sliding windows or capped scores, which only decoder-only models may have"
        )
    if any(rule.bias is not None for rule in sites[CROSS].rules):
        raise UnsupportedModelError(f"{name} has positions in its cross attention")
