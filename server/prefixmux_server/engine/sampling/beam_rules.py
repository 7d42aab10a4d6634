"""Two codes' rules for a beam search: how a sequence is scored, and what is still hoped for.

`generated` counts new tokens, an end token included. A `total` is a sum of log-probabilities;
`score` divides it by a power of a length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from prefixmux_server.engine.params import BeamParams, SamplingParams


@dataclass(frozen=True)
class Candidate:
    """`token` may follow running beam `beam`, and makes `total` of its total."""

    total: float
    beam: int
    token: int


@dataclass(frozen=True)
class Ranking:
    """A step's candidates, the best first. `top` are the best, as many as there may be beams;
    `ended` those of them that end; `open` the best that do not end, wherever they rank."""

    top: Sequence[Candidate]
    ended: Sequence[Candidate]
    open: Sequence[Candidate]


class Rules(Protocol):
    """One code's way."""

    def score(self, total: float, generated: int, *, ended: bool) -> float: ...

    def hope(self, ranking: Ranking, generated: int) -> float:
        """The score that a sequence not found yet is expected to reach at best."""
        ...

    def cut(self, ranking: Ranking, *, over: bool) -> Sequence[Candidate]:
        """What is kept without an end token when no further token is allowed. `over`: the search
        would have stopped by itself at this step."""
        ...


def rules_of(params: SamplingParams, prompt: int) -> Rules:
    """`prompt`: the decoder's tokens before the first new one."""
    beams = params.beams
    assert beams is not None, "a beam search needs its parameters"
    if beams.length_includes_prompt:
        return PaperRules(beams, params.max_new_tokens, prompt)
    return TransformersRules(beams, params.max_new_tokens)


@dataclass(frozen=True)
class TransformersRules:
    """`_beam_search` of transformers 5: the length is that of the new tokens."""

    beams: BeamParams
    max_new_tokens: int

    def score(self, total: float, generated: int, *, ended: bool) -> float:
        # A search may end before its first token, where everything is banned.
        return _per_length(total, max(generated, 1), self.beams)

    def hope(self, ranking: Ranking, generated: int) -> float:
        length = self.max_new_tokens if _patient(self.beams) else generated
        return self.score(ranking.open[0].total, length, ended=False)

    def cut(self, ranking: Ranking, *, over: bool) -> Sequence[Candidate]:
        return [candidate for candidate in ranking.top if candidate not in ranking.ended]


@dataclass(frozen=True)
class PaperRules:
    """The code of Li & Liang (2021), which is transformers 3.2: the length is that of the whole
    sequence but for its end token. It knows no "never", which asks for the same as above."""

    beams: BeamParams
    max_new_tokens: int
    prompt: int

    def score(self, total: float, generated: int, *, ended: bool) -> float:
        return _per_length(total, self.prompt + generated - ended, self.beams)

    def hope(self, ranking: Ranking, generated: int) -> float:
        """Rests on the best candidate even if it has just ended, at the length before it."""
        length = self.max_new_tokens if _patient(self.beams) else generated - 1
        return self.score(ranking.top[0].total, length, ended=False)

    def cut(self, ranking: Ranking, *, over: bool) -> Sequence[Candidate]:
        return () if over else ranking.open


def _patient(beams: BeamParams) -> bool:
    """Whether a beam is judged by what it may have become at full length."""
    return beams.early_stopping == "never" and beams.length_penalty > 0


def _per_length(total: float, length: int, beams: BeamParams) -> float:
    return total / math.pow(length, beams.length_penalty)
