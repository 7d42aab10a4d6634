"""The one attention function that every layer of a bound model calls.

The model code stays unchanged. Everything a step needs rides through the forward call as the
keyword `prefixmux_step`, so there is no global context. A name that has no entry in the mask
registry makes transformers build no mask at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from prefixmux_server.attention.base import StepPlan
from prefixmux_server.model.errors import UnsupportedModelError

ATTENTION_NAME = "prefixmux"


class ModuleAttention(Protocol):
    """Attends on behalf of one attention module of the model."""

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float,
        features: Mapping[str, object],
    ) -> Tensor:
        """Tensors as in `StepPlan.attend`; `features` is what else the module passes on."""
        ...


@dataclass(frozen=True)
class BoundStep:
    """One step's plans, asked by attention modules instead of by site and layer."""

    plans: Mapping[str, StepPlan]
    places: Mapping[nn.Module, tuple[str, int]]

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float,
        features: Mapping[str, object],
    ) -> Tensor:
        site, layer = self.places[module]
        return self.plans[site].attend(layer, query, key, value, scaling)


def use_attention(model: PreTrainedModel, name: str) -> None:
    """Set a registered attention in all parts: some have a copy of the config, which setting it in
    the whole does not reach in every version of transformers."""
    for part in model.modules():
        if isinstance(part, PreTrainedModel):
            part.set_attn_implementation(name)


def register_attention() -> None:
    """Make the name known to transformers; doing so again changes nothing."""
    AttentionInterface.register(ATTENTION_NAME, _attention)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    prefixmux_step: ModuleAttention | None = None,
    **features: object,
) -> tuple[Tensor, None]:
    """What every attention module calls; `[1, H, T, D]` in, `[1, T, H, D]` out."""
    name = type(module).__name__
    if attention_mask is not None:
        raise UnsupportedModelError(f"{name} needs an attention_mask, which is not implemented")
    if prefixmux_step is None:
        raise UnsupportedModelError(f"{name} drops keyword arguments on their way to its attention")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = prefixmux_step.attend(module, query[0], key[0], value[0], float(scale), features)
    return out.unsqueeze(0), None
