"""From logits to the next token, row by row.

Noise is a pure function of (seed, output index, step): a request draws the same tokens whatever
else is in the batch. Order: bans, penalties, temperature, top_k, top_p, min_p. Virtual tokens
count in no penalty, because they are not tokens.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import torch
from torch import Tensor

from prefixmux_server.engine.params import SamplingParams

_TOP_P_SHORTCUT = 512
# Below these a temperature is greedy and a penalty absolute; dividing by less gives inf and NaN.
_LEAST_TEMPERATURE = 1e-30
_LEAST_PENALTY = 1e-6


@dataclass(frozen=True)
class SamplingRow:
    """What the choice of one row's next token depends on."""

    params: SamplingParams
    prompt: Sequence[int]
    output: Sequence[int]


class Sampler:
    """`eos` are the ids that end a request unless it ignores them."""

    def __init__(self, eos: frozenset[int]) -> None:
        self._eos = eos

    def sample(self, logits: Tensor, rows: Sequence[SamplingRow]) -> list[int | None]:
        """One token per row of `logits [n, vocabulary]`; None where they are not finite.

        `max` is used in place of `argmax`, which is several times slower in 16-bit on a CPU. A
        NaN anywhere in a row is its maximum; -inf is a model's own way to ban a token.
        """
        best, greedy = logits.max(dim=-1)
        tokens: list[int | None] = list(greedy.tolist())
        for index, finite in enumerate(best.isfinite().tolist()):
            if not finite:
                tokens[index] = None
            elif not self._is_plain(rows[index]):
                tokens[index] = self._choose(logits[index].float(), rows[index])
        return tokens

    def _is_plain(self, row: SamplingRow) -> bool:
        """Greedy over the raw logits: the maximum is the answer."""
        p = row.params
        penalised = p.repetition_penalty != 1 or p.frequency_penalty or p.presence_penalty
        return p.temperature == 0 and not penalised and len(row.output) >= p.min_new_tokens

    def _choose(self, logits: Tensor, row: SamplingRow) -> int:
        logits = self._process(logits, row)
        if row.params.temperature == 0:
            return int(logits.max(dim=-1).indices)
        temperature = max(row.params.temperature, _LEAST_TEMPERATURE)
        probabilities, ids = _truncate((logits - logits.max()) / temperature, row.params)
        drawn = uniform(row.params.seed, 0, len(row.output))
        cumulative = probabilities.double().cumsum(0)
        index = int(torch.searchsorted(cumulative, drawn * float(cumulative[-1]), right=True))
        return int(ids[min(index, len(ids) - 1)])

    def _process(self, logits: Tensor, row: SamplingRow) -> Tensor:
        """Bans and penalties; later also whatever else shapes a single row."""
        logits = logits.clone()
        if len(row.output) < row.params.min_new_tokens:
            ends = self._eos | set(row.params.stop_token_ids)
            banned = sorted(token for token in ends if token < len(logits))
            logits[torch.tensor(banned, dtype=torch.long, device=logits.device)] = float("-inf")
        _penalise(logits, row)
        return logits.clamp_(max=torch.finfo(logits.dtype).max)


def _penalise(logits: Tensor, row: SamplingRow) -> None:
    """Repetition as in CTRL (prompt and output), frequency and presence as OpenAI (output)."""
    p, device = row.params, logits.device
    if p.repetition_penalty != 1:
        penalty = max(p.repetition_penalty, _LEAST_PENALTY)
        seen = torch.tensor(sorted({*row.prompt, *row.output}), device=device)
        scores = logits[seen]
        logits[seen] = torch.where(scores < 0, scores * penalty, scores / penalty)
    if row.output and (p.frequency_penalty or p.presence_penalty):
        counts = Counter(row.output)
        made = torch.tensor(list(counts), device=device)
        times = torch.tensor(list(counts.values()), device=device)
        logits[made] -= p.frequency_penalty * times + p.presence_penalty


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


def uniform(seed: int, index: int, step: int) -> float:
    """A number in [0, 1) that depends on nothing but its arguments."""
    digest = blake2b(struct.pack("<QQQ", seed, index, step), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64 * (1 - 2**-53)
