"""What the model's own code answers: eager attention and a `DynamicCache`, nothing of ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel


def load_reference(folder: Path) -> PreTrainedModel:
    """A second copy of the model, which our engine never touches."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    return cast(PreTrainedModel, model.eval())


@torch.inference_mode()
def greedy(
    model: PreTrainedModel,
    input_ids: Sequence[int],
    count: int,
    prefix: torch.Tensor | None = None,
) -> list[int]:
    """`count` greedy tokens of one request alone; `prefix` is `[L, 2, P, H_kv, D]`."""
    cache, start = DynamicCache(), 0
    if prefix is not None:
        start = prefix.shape[2]
        for layer, (key, value) in enumerate(prefix):
            cache.update(key.transpose(0, 1)[None], value.transpose(0, 1)[None], layer)
    tokens, made = list(input_ids), 0
    for _ in range(count):
        fresh = tokens[made:]
        positions = torch.arange(start + made, start + len(tokens))
        output = model(
            input_ids=torch.tensor([fresh]),
            position_ids=positions[None],
            past_key_values=cache,
            use_cache=True,
        )
        made = len(tokens)
        tokens.append(int(output.logits[0, -1].argmax()))
    return tokens[len(input_ids) :]
