"""Forward passes of a decoder-only model over a ragged batch. Knows tokens, not requests."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prefixmux_server.model.binding import Binding
from prefixmux_server.model.embedding import InputEmbedding
from prefixmux_server.model.inputs import ForwardInputs
from prefixmux_server.model.interface import BoundStep


class CausalModel:
    """The frozen model, fed all rows' tokens at once as `[1, T]`."""

    def __init__(
        self, module: PreTrainedModel, binding: Binding, embedding: InputEmbedding
    ) -> None:
        self._module = module
        self._places = binding.places
        self._embedding = embedding

    @torch.inference_mode()
    def forward(self, inputs: ForwardInputs) -> Tensor:
        """As in `SequenceModel`."""
        device = self._module.device
        output = self._module(
            **self._embedding.given(inputs.tokens),
            position_ids=torch.tensor([inputs.tokens.positions], device=device),
            logits_to_keep=torch.tensor(inputs.keep, dtype=torch.long, device=device),
            use_cache=False,
            prefixmux_step=BoundStep(inputs.plans, self._places),
        )
        return cast(Tensor, output.logits[0])
