"""The beam search of 2020 written down a second time: transformers 3.2, for one request."""

from __future__ import annotations

from collections.abc import Sequence

from prefixmux_server.engine.params import SamplingParams
from support.beam_models import Logits, Tokens


def search_of_2020(
    logits_of: Logits, params: SamplingParams, prompt: Sequence[int], eos: frozenset[int]
) -> list[tuple[Tokens, float]]:
    """As `_generate_beam_search` and `BeamHypotheses` of transformers 3.2 go, for one request.

    Knows end tokens, `min_new_tokens`, n-grams, and a forced last token; all sums in float64.
    """
    beams = params.beams
    assert beams is not None
    running: list[tuple[Tokens, float]] = [(tuple(prompt), 0.0)]
    kept: list[tuple[float, Tokens, bool]] = []

    def add(tokens: Tokens, total: float, ended: bool) -> None:
        score = total / len(tokens) ** beams.length_penalty
        if len(kept) < beams.num_beams or score > min(kept)[0]:
            kept.append((score, tokens, ended))
            if len(kept) > beams.num_beams:
                kept.remove(min(kept))

    done = False
    length = len(prompt)
    endings: dict[Tokens, int] = {}
    while length < len(prompt) + params.max_new_tokens and not done:
        candidates = _continuations_of_2020(logits_of, params, running, length - len(prompt), eos)
        going: list[tuple[Tokens, float]] = []
        for rank, (total, tokens) in enumerate(candidates[: 2 * beams.num_beams]):
            if tokens[-1] in eos:
                if rank < beams.num_beams:
                    endings[tokens[:-1]] = tokens[-1]
                    add(tokens[:-1], total, True)
            elif len(going) < beams.num_beams:
                going.append((tokens, total))
        if len(kept) == beams.num_beams:
            hope = candidates[0][0] / length**beams.length_penalty
            done = beams.early_stopping == "yes" or min(kept)[0] >= hope
        if done or not going:
            break
        running, length = going, length + 1
    else:
        for tokens, total in running:
            add(tokens, total, False)
    answers = [
        ((*tokens[len(prompt) :], *([endings[tokens]] if ended else [])), score)
        for score, tokens, ended in sorted(kept, reverse=True)
    ]
    return answers[: beams.num_return]


def _continuations_of_2020(
    logits_of: Logits,
    params: SamplingParams,
    running: Sequence[tuple[Tokens, float]],
    made: int,
    eos: frozenset[int],
) -> list[tuple[float, Tokens]]:
    """All that may follow, the best first."""
    found = []
    table = logits_of([tokens for tokens, _ in running]).double().log_softmax(-1).tolist()
    size = params.no_repeat_ngram_size
    for (tokens, total), row in zip(running, table, strict=True):
        grams = {tokens[i : i + size] for i in range(len(tokens) - size + 1)}
        for token, gain in enumerate(row):
            if made < params.min_new_tokens and token in eos:
                continue
            if size and (*tokens, token)[-size:] in grams:
                continue
            if params.forced_eos_token_id is not None and made == params.max_new_tokens - 1:
                if token != params.forced_eos_token_id:
                    continue
                gain = 0.0
            found.append((total + gain, (*tokens, token)))
    return sorted(found, reverse=True)
