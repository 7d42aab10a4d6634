"""Log-probabilities as a client is told them: of one token, and of the most likely ones.

They are those of raw logits, in float32, before anything that shapes the choice of a token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prefixmux_server.engine.messages import LEAST_LOGPROB, TokenLogprobs

# Values that are looked at together: it bounds what a long prompt of a large vocabulary takes.
_SLICE = 1 << 22


def token_logprobs(
    logits: Tensor, tokens: Sequence[int], top: int
) -> tuple[TokenLogprobs, ...] | None:
    """Of `tokens[i]` under row i of `logits [n, vocabulary]`, each beside the `top` most likely
    ones, of which the first is what would be said greedily. None: some row is not finite.
    """
    found: list[TokenLogprobs] = []
    rows = max(1, _SLICE // logits.shape[-1])
    for start in range(0, len(tokens), rows):
        part = _slice(logits[start : start + rows], tokens[start : start + rows], top)
        if part is None:
            return None
        found += part
    return tuple(found)


def _slice(logits: Tensor, tokens: Sequence[int], top: int) -> list[TokenLogprobs] | None:
    best, greedy = logits.max(dim=-1)
    if not bool(best.isfinite().all()):
        return None
    vocabulary = logits.shape[-1]
    ranked = _ranked(logits, greedy, min(top, vocabulary))
    # A table of embeddings may have more rows than the model has outputs.
    said = torch.tensor([[min(token, vocabulary - 1)] for token in tokens], device=logits.device)
    ids = torch.cat([said, ranked], dim=1)
    scores = logits.float().log_softmax(dim=-1).gather(1, ids).clamp(min=LEAST_LOGPROB)
    return [
        TokenLogprobs(
            token_id=token,
            logprob=values[0] if token < vocabulary else LEAST_LOGPROB,
            top_ids=tuple(order),
            top_logprobs=tuple(values[1:]),
        )
        for token, order, values in zip(tokens, ranked.tolist(), scores.tolist(), strict=True)
    ]


def _ranked(logits: Tensor, greedy: Tensor, count: int) -> Tensor:
    """Ids `[n, count]`, the most likely first. Of equals the one that `max` prefers leads, so
    that this agrees with the sampler."""
    ids = logits.topk(count).indices
    if count:
        doubled = ids == greedy[:, None]
        # Where it is not at its place, whoever stands there is as likely, and takes the last one's.
        away = torch.where(doubled.any(dim=1), doubled.int().argmax(dim=1), count - 1)
        ids.scatter_(1, away[:, None], ids[:, :1].clone())
        ids[:, 0] = greedy
    return ids
