"""The truth about one request: the model's own code, alone, and how sure its choices are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache, PreTrainedModel

CLOSE = 1e-4
"""Two best logits that are nearer than this may swap places by rounding alone."""


@dataclass(frozen=True)
class Alone:
    """Greedy tokens; the first `sure` of them come before the first close call."""

    tokens: tuple[int, ...]
    sure: int

    def upto(self, count: int, eos: Collection[int] = ()) -> tuple[int, ...]:
        """What a request for `count` tokens must answer, as far as that is sure."""
        certain = self.tokens[: min(count, self.sure)]
        ends = [at for at, token in enumerate(certain) if token in eos]
        return certain[: ends[0] + 1] if ends else certain


@torch.inference_mode()
def alone(
    model: PreTrainedModel,
    input_ids: Sequence[int],
    count: int,
    prefix: torch.Tensor | None = None,
) -> Alone:
    """`count` greedy tokens by eager attention and a `DynamicCache`; `prefix` `[L, 2, P, H, D]`."""
    cache, start = DynamicCache(), 0
    if prefix is not None:
        start = prefix.shape[2]
        for layer, (key, value) in enumerate(prefix):
            cache.update(key.transpose(0, 1)[None], value.transpose(0, 1)[None], layer)
    tokens, made, sure = list(input_ids), 0, count
    for step in range(count):
        output = model(
            input_ids=torch.tensor([tokens[made:]]),
            position_ids=torch.arange(start + made, start + len(tokens))[None],
            past_key_values=cache,
            use_cache=True,
        )
        best, ids = output.logits[0, -1].topk(2)
        if float(best[0] - best[1]) < CLOSE:
            sure = min(sure, step)
        made = len(tokens)
        tokens.append(int(ids[0]))
    return Alone(tuple(tokens[len(input_ids) :]), sure)
