"""Forward passes of a decoder-only model over a ragged batch. Knows tokens, not requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prefixmux_server.attention.base import StepPlan
from prefixmux_server.model.binding import Binding


@dataclass(frozen=True)
class _BoundPlan:
    """One step's plan, asked by attention modules instead of by layer number."""

    plan: StepPlan
    binding: Binding

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        return self.plan.attend(self.binding.layers[module], query, key, value, scaling)


class CausalModel:
    """The frozen model, fed all rows' tokens at once as `[1, T]`."""

    def __init__(self, module: PreTrainedModel, binding: Binding) -> None:
        self._module = module
        self._binding = binding

    @torch.inference_mode()
    def forward(
        self,
        token_ids: Sequence[int],
        positions: Sequence[int],
        keep: Sequence[int],
        plan: StepPlan,
    ) -> Tensor:
        """Logits `[len(keep), vocabulary]` after the tokens at the indices `keep`.

        `token_ids` and `positions` are the T tokens of all rows, one row after another.
        """
        device = self._module.device
        output = self._module(
            input_ids=torch.tensor([token_ids], device=device),
            position_ids=torch.tensor([positions], device=device),
            logits_to_keep=torch.tensor(keep, dtype=torch.long, device=device),
            use_cache=False,
            prefixmux_step=_BoundPlan(plan, self._binding),
        )
        return cast(Tensor, output.logits[0])
