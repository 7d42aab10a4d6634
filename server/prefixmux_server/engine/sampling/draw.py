"""A token drawn at random: temperature, top_k, top_p, min_p, and noise that can be repeated.

Noise is a pure function of (seed, output index, step): a request draws the same tokens whatever
else is in the batch.
"""

from __future__ import annotations

import struct
from hashlib import blake2b

import torch
from torch import Tensor

from prefixmux_server.engine.params import SamplingParams

_TOP_P_SHORTCUT = 512
# Below this a temperature is greedy; dividing by less gives inf and NaN.
_LEAST_TEMPERATURE = 1e-30


def draw(scores: Tensor, params: SamplingParams, index: int, step: int) -> int:
    """Token number `step` of output `index`; one of `scores [vocabulary]`, of which at least one
    is finite."""
    temperature = max(params.temperature, _LEAST_TEMPERATURE)
    probabilities, ids = _truncate((scores - scores.max()) / temperature, params)
    drawn = uniform(params.seed, index, step)
    cumulative = probabilities.double().cumsum(0)
    index = int(torch.searchsorted(cumulative, drawn * float(cumulative[-1]), right=True))
    return int(ids[min(index, len(ids) - 1)])


def uniform(seed: int, index: int, step: int) -> float:
    """A number in [0, 1) that depends on nothing but its arguments."""
    digest = blake2b(struct.pack("<QQQ", seed, index, step), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64 * (1 - 2**-53)


def _truncate(logits: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """Probabilities and token ids that survive top_k, top_p and min_p."""
    ids = torch.arange(len(logits), device=logits.device)
    if 0 < params.top_k < len(logits):
        logits, ids = logits.topk(params.top_k)
    probabilities = logits.softmax(0)
    if params.top_p < 1:
        probabilities, kept = _nucleus(probabilities, params.top_p)
        ids = ids[kept]
    if params.min_p > 0:
        # Asked this way round, the most likely token stays whatever rounding does.
        keep = ~(probabilities < params.min_p * probabilities.max())
        probabilities, ids = probabilities[keep], ids[keep]
    return probabilities, ids


def _nucleus(probabilities: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """The fewest most likely tokens whose mass reaches `top_p`; a full sort only if needed."""
    for count in (min(_TOP_P_SHORTCUT, len(probabilities)), len(probabilities)):
        best, ids = probabilities.topk(count)
        mass = best.double().cumsum(0)
        if float(mass[-1]) >= top_p:
            break
    keep = int((mass < top_p).sum()) + 1
    return best[:keep], ids[:keep]
