"""What is done to the scores of the next token before one is chosen: penalties and bans.

Scores are raw logits, or log-probabilities where a beam search adds them up. Only real tokens
count: the prompt of a decoder-only model, or what the decoder began with, and the output.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prefixmux_server.engine.params import SamplingParams

# Below this a penalty is absolute; dividing by less gives inf.
_LEAST_PENALTY = 1e-6


@dataclass(frozen=True)
class SamplingRow:
    """What the choice of one row's next token depends on; `index` is the output's."""

    params: SamplingParams
    prompt: Sequence[int]
    output: Sequence[int]
    index: int = 0


def forced_token(row: SamplingRow) -> int | None:
    """The token that must come next, whatever the scores: the last one goes before the first."""
    params = row.params
    if params.forced_eos_token_id is not None and len(row.output) == params.max_new_tokens - 1:
        return params.forced_eos_token_id
    alone = len(row.prompt) + len(row.output) == 1
    return params.forced_bos_token_id if alone else None


def banned_tokens(row: SamplingRow, eos: frozenset[int]) -> set[int]:
    """Tokens that must not come next: the end too early, or an n-gram for the second time."""
    params = row.params
    banned: set[int] = set()
    if len(row.output) < params.min_new_tokens:
        banned |= eos.union(params.stop_token_ids)
    if params.no_repeat_ngram_size:
        banned |= _repeating([*row.prompt, *row.output], params.no_repeat_ngram_size)
    return banned


def penalised(params: SamplingParams) -> bool:
    """Whether scores depend on the tokens before them."""
    return bool(
        params.repetition_penalty != 1 or params.frequency_penalty or params.presence_penalty
    )


def shape(scores: Tensor, rows: Sequence[SamplingRow], eos: frozenset[int]) -> None:
    """Write penalties and bans into `scores [len(rows), vocabulary]`, float32."""
    vocabulary = scores.shape[-1]
    places: list[tuple[int, int]] = []
    for index, row in enumerate(rows):
        if penalised(row.params):
            _penalise(scores[index], row)
        banned = banned_tokens(row, eos)
        places += [(index, token) for token in banned if token < vocabulary]
    if places:
        where = torch.tensor(places, device=scores.device)
        scores[where[:, 0], where[:, 1]] = float("-inf")


def _penalise(scores: Tensor, row: SamplingRow) -> None:
    """Repetition as in CTRL (prompt and output), frequency and presence as OpenAI (output)."""
    params, device = row.params, scores.device
    if params.repetition_penalty != 1:
        penalty = max(params.repetition_penalty, _LEAST_PENALTY)
        known = {token for token in (*row.prompt, *row.output) if token < len(scores)}
        seen = torch.tensor(sorted(known), dtype=torch.long, device=device)
        chosen = scores[seen]
        scores[seen] = torch.where(chosen < 0, chosen * penalty, chosen / penalty)
    if row.output and (params.frequency_penalty or params.presence_penalty):
        counts = Counter(row.output)
        made = torch.tensor(list(counts), device=device)
        times = torch.tensor(list(counts.values()), device=device)
        scores[made] -= params.frequency_penalty * times + params.presence_penalty
    scores.clamp_(max=torch.finfo(scores.dtype).max)


def _repeating(tokens: list[int], size: int) -> set[int]:
    """Tokens that would end an n-gram of `size` which `tokens` hold already."""
    if size == 1:
        return set(tokens)
    begun = tokens[1 - size :]
    if len(begun) < size - 1:
        return set()
    found: set[int] = set()
    # The last token of the beginning is looked for in C; few places are looked at more closely.
    at = size - 2
    while True:
        try:
            at = tokens.index(begun[-1], at, len(tokens) - 1)
        except ValueError:
            return found
        if tokens[at + 2 - size : at + 1] == begun:
            found.add(tokens[at + 1])
        at += 1
