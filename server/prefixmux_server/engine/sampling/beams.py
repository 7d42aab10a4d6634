"""Beam search of one request: logits in, tokens out. It knows neither memory nor engine.

It gives what transformers' `_beam_search` gives, score for score, and, where the length includes
the prompt, what the code of Li & Liang (2021) gave (`beam_rules.py` has what sets them apart).
Log-probabilities are the log-softmax of raw logits in float32; penalties and bans are applied to
them, and nothing is renormalised. Two things are done in another way, with the same sequences:
the prompt runs once and not once per beam, and a beam that has nowhere to go is dropped, where
transformers drags it along at -1e9; so there may be fewer beams than asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prefixmux_server.engine.messages import BeamOutput, FinishReason
from prefixmux_server.engine.params import SamplingParams
from prefixmux_server.engine.sampling.beam_rules import Candidate, Ranking, rules_of
from prefixmux_server.engine.sampling.shaping import SamplingRow, forced_token, shape


class NonFiniteLogits(Exception):
    """Some beam's logits have a NaN or an infinity; the search has not moved."""


@dataclass(frozen=True)
class BeamStep:
    """Running beam i goes on from beam `parents[i]` of the step before, with `tokens[i]`."""

    parents: tuple[int, ...]
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class _Beam:
    """New tokens so far, and the sum of their log-probabilities."""

    tokens: tuple[int, ...]
    total: float


@dataclass(frozen=True)
class _Found:
    """A sequence that is complete."""

    tokens: tuple[int, ...]
    score: float


class BeamSearch:
    """`prompt` are the decoder's tokens before the first new one, `eos` the model's end ids.

    It begins with one running beam, the prompt. Invariant: running beams are all of one length
    and sorted, the best first; so are the sequences found, never more than `num_beams`.
    """

    def __init__(self, params: SamplingParams, prompt: Sequence[int], eos: frozenset[int]) -> None:
        assert params.beams is not None, "a beam search needs its parameters"
        self._params = params
        self._beams = params.beams
        self._prompt = tuple(prompt)
        self._eos = eos
        self._ends = (frozenset() if params.ignore_eos else eos).union(params.stop_token_ids)
        self._rules = rules_of(params, len(prompt))
        self._running = [_Beam((), 0.0)]
        self._found: list[_Found] = []

    @property
    def width(self) -> int:
        """How many beams run: rows of logits that the next step needs."""
        return len(self._running)

    def advance(self, logits: Tensor) -> BeamStep | None:
        """The next step from `logits [width, vocabulary]`, row i for running beam i; None: the
        search is over. Raises NonFiniteLogits; whatever it raises, nothing has moved."""
        candidates = self._candidates(logits)
        count = self._beams.num_beams
        ranking = Ranking(
            top=candidates[:count],
            ended=[c for c in candidates[:count] if c.token in self._ends],
            open=[c for c in candidates if c.token not in self._ends][:count],
        )
        generated = len(self._running[0].tokens) + 1
        self._keep(ranking.ended, ended=True)
        over = self._is_over(ranking, generated)
        if generated == self._params.max_new_tokens:
            self._keep(self._rules.cut(ranking, over=over), ended=False)
            return None
        if over or not ranking.open:
            return None
        self._running = [self._grow(candidate) for candidate in ranking.open]
        return BeamStep(
            parents=tuple(candidate.beam for candidate in ranking.open),
            tokens=tuple(candidate.token for candidate in ranking.open),
        )

    def results(self) -> tuple[BeamOutput, ...]:
        """The best sequences, the best first: `num_return`, or as many as there are.

        Where bans left no way to go on before any sequence was complete, they are the beams as
        they stood.
        """
        generated = len(self._running[0].tokens)
        stuck = [
            _Found(beam.tokens, self._rules.score(beam.total, generated, ended=False))
            for beam in self._running
        ]
        return tuple(
            BeamOutput(found.tokens, found.score, self._reason(found.tokens))
            for found in (self._found or stuck)[: self._beams.num_return]
        )

    def _candidates(self, logits: Tensor) -> list[Candidate]:
        """The best continuations of all beams together, the best first; banned ones are left out.

        Enough of them that `num_beams` go on even if every other one ends.
        """
        rows = [SamplingRow(self._params, self._prompt, beam.tokens) for beam in self._running]
        forced = forced_token(rows[0])
        if forced is not None:
            _check(logits.amax(dim=-1).tolist())
            return [Candidate(beam.total, i, forced) for i, beam in enumerate(self._running)]
        scores = logits.float().log_softmax(dim=-1)
        shape(scores, rows, self._eos)
        scores += torch.tensor([[beam.total] for beam in self._running], device=scores.device)
        count = max(2, 1 + len(self._ends)) * self._beams.num_beams
        best, places = scores.flatten().topk(min(count, scores.numel()))
        totals, vocabulary = best.tolist(), scores.shape[-1]
        # A row that was not finite is NaN throughout, and NaN is the greatest there is.
        _check(total for total in totals if total != -math.inf)
        return [
            Candidate(total, *divmod(place, vocabulary))
            for total, place in zip(totals, places.tolist(), strict=True)
            if total != -math.inf
        ]

    def _grow(self, candidate: Candidate) -> _Beam:
        tokens = self._running[candidate.beam].tokens
        return _Beam((*tokens, candidate.token), candidate.total)

    def _keep(self, candidates: Sequence[Candidate], *, ended: bool) -> None:
        """Count them among the sequences found, of which the best stay; the older wins a tie."""
        for beam in map(self._grow, candidates):
            score = self._rules.score(beam.total, len(beam.tokens), ended=ended)
            self._found.append(_Found(beam.tokens, score))
        self._found.sort(key=lambda found: -found.score)
        del self._found[self._beams.num_beams :]

    def _is_over(self, ranking: Ranking, generated: int) -> bool:
        """Whether enough is found, and nothing better is looked for or hoped for."""
        if len(self._found) < self._beams.num_beams:
            return False
        if self._beams.early_stopping == "yes" or not ranking.open:
            return True
        return self._rules.hope(ranking, generated) <= self._found[-1].score

    def _reason(self, tokens: tuple[int, ...]) -> FinishReason:
        last = tokens[-1] if tokens else None
        if last in self._params.stop_token_ids:
            return "stop"
        return "eos" if last in self._ends else "length"


def _check(numbers: Iterable[float]) -> None:
    if not all(map(math.isfinite, numbers)):
        raise NonFiniteLogits
