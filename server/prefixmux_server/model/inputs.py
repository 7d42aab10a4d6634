"""What one forward pass is given, in plain arrays. Knows tokens and sites, not requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from prefixmux_server.attention.base import StepPlan


@dataclass(frozen=True, eq=False)
class TokenInputs:
    """T tokens of a ragged batch, one row after another.

    `embeddings` are virtual tokens: by index of the first, `[n, width]`, which stand in for the
    ids at `index .. index + n`. `unscaled` are ranges of real tokens that enter without the scale
    that the model gives ids: PEFT runs them so beside virtual tokens (Pegasus, Marian).
    """

    token_ids: Sequence[int]
    positions: Sequence[int]
    embeddings: Mapping[int, Tensor] = field(default_factory=dict)
    unscaled: Sequence[range] = ()


@dataclass(frozen=True, eq=False)
class ForwardInputs:
    """One step: the decoder's tokens, and the encoder's of rows that begin.

    `plans` are by site: `decoder`, and for an encoder-decoder model `cross`; with `encoder`
    tokens also `encoder`. `keep` are the decoder's tokens that want logits.
    """

    tokens: TokenInputs
    keep: Sequence[int]
    plans: Mapping[str, StepPlan]
    encoder: TokenInputs | None = None


class SequenceModel(Protocol):
    """A frozen model of either family."""

    def forward(self, inputs: ForwardInputs) -> Tensor:
        """Logits `[len(keep), vocabulary]`. An encoder's new output `[S, hidden]` reaches the
        cross attention of the same step as keys and values of S tokens; in a step without one
        they have 0 tokens, and the plan reads what it stored."""
        ...
