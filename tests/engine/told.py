"""Log-probabilities held against logits, and the logits of prompts, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from engine.twin import Twin
from support.models import VOCABULARY
from torch import Tensor

from prefixmux_server.engine.messages import Submit, TokenLogprobs

# Sums of float32 in another order.
CLOSE = 2e-4


def check_told(
    told: Sequence[TokenLogprobs], tokens: Sequence[int], logits: Tensor, top: int
) -> None:
    """`logits` `[n, vocabulary]` are the truth, one row per token; of near equals either may be
    before the other."""
    assert [one.token_id for one in told] == list(tokens)
    assert len(logits) == len(tokens)
    for one, row in zip(told, logits.double().log_softmax(-1), strict=True):
        assert abs(one.logprob - float(row[one.token_id])) < CLOSE
        ids = [likely.token_id for likely in one.top]
        assert len(set(ids)) == len(ids) == min(top, len(row))
        values = [likely.logprob for likely in one.top]
        assert values == sorted(values, reverse=True)
        for wanted in (row[ids], row.topk(len(ids)).values):
            torch.testing.assert_close(torch.tensor(values).double(), wanted, atol=CLOSE, rtol=0)


def prompt_logits(twin: Twin, request: Submit) -> tuple[tuple[int, ...], Tensor]:
    """The decoder's real tokens but the first, and raw logits `[n, vocabulary]` of what stands
    right before each: x before the first behind an infix, or the infix itself if it runs."""
    x, y = request.input_ids, request.decoder_ids
    begun = [replace(request, decoder_ids=y[:n]) for n in range(1, len(y))]
    if twin.slow.model.seq2seq:
        return y[1:], _logits(twin, begun)
    infixes = [name for name in request.prefixes if twin.pieces[name].method.startswith("INFIX")]
    before = tuple(name for name in request.prefixes if name not in infixes)
    alone = replace(request, prefixes=before, decoder_ids=())
    parts = [_logits(twin, [replace(alone, input_ids=x[:n]) for n in range(1, len(x))])]
    if y:
        parts.append(_behind(twin, alone, infixes)[None])
    return (*x[1:], *y), torch.cat([*parts, _logits(twin, begun)])


def _logits(twin: Twin, requests: Sequence[Submit]) -> Tensor:
    rows = [twin.logits(request) for request in requests]
    return torch.stack(rows) if rows else torch.empty(0, VOCABULARY)


def _behind(twin: Twin, alone: Submit, infixes: Sequence[str]) -> Tensor:
    owned = [e for name in infixes if (e := twin.pieces[name].embeddings) is not None]
    if not owned:
        return twin.logits(alone)
    told = twin.told(twin.asked(alone, 1))
    return twin.slow.infix_logits(owned[0], told.input_ids, told.pieces)
