"""Tokens as embeddings, for steps in which virtual tokens stand among them.

Some models scale what they look up by ids themselves, after their embedding module, and take
embeddings as they are: that factor is found by trying it, not by the model's name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from prefixmux_server.model.agreement import difference
from prefixmux_server.model.inputs import TokenInputs

_TRIAL_TOKENS = 5


class InputEmbedding:
    """`module` is the embedding of the model's stack; `factor` what ids are scaled by after it."""

    def __init__(self, module: nn.Module, factor: float) -> None:
        self._module = module
        self._factor = factor

    def given(self, tokens: TokenInputs) -> dict[str, Tensor]:
        """What to call the stack with: ids as a rule, embeddings where they are needed."""
        if tokens.embeddings or tokens.unscaled:
            return {"inputs_embeds": self._embed(tokens)}
        return {"input_ids": self._ids(tokens)}

    def _ids(self, tokens: TokenInputs) -> Tensor:
        return torch.tensor([tokens.token_ids], device=cast(Tensor, self._module.weight).device)

    def _embed(self, tokens: TokenInputs) -> Tensor:
        """`[1, T, width]`."""
        found = cast(Tensor, self._module(self._ids(tokens)))
        if self._factor != 1.0:
            found = found * self._factors(tokens).to(found)
        for index, virtual in tokens.embeddings.items():
            found[0, index : index + len(virtual)] = virtual.to(found)
        return found

    def _factors(self, tokens: TokenInputs) -> Tensor:
        factors = torch.full((len(tokens.token_ids), 1), self._factor)
        for span in tokens.unscaled:
            factors[span.start : span.stop] = 1.0
        return factors


def width_of(module: nn.Module) -> int:
    """What a virtual token's embedding must have: not always the model's hidden size."""
    return int(cast(Tensor, module.weight).shape[1])


@torch.inference_mode()
def find_factor(
    embedding: nn.Module,
    by_ids: Callable[[Tensor], Tensor],
    by_embeddings: Callable[[Tensor], Tensor],
    tolerance: float,
) -> float | None:
    """What ids are multiplied by after `embedding`: 1 or the root of the width; None if neither.

    The functions are the model's own answers to ids `[1, T]` and to embeddings `[1, T, width]`.
    """
    weight = cast(Tensor, embedding.weight)
    ids = torch.arange(1, 1 + _TRIAL_TOKENS, device=weight.device)[None] % weight.shape[0]
    expected = by_ids(ids)[0]
    apart = {
        factor: difference(by_embeddings(embedding(ids) * factor)[0], expected)
        for factor in (1.0, width_of(embedding) ** 0.5)
    }
    best = min(apart, key=lambda factor: apart[factor])
    return best if apart[best] <= tolerance else None
