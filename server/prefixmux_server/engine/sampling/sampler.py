"""From logits to the next token, row by row.

Order: what is forced, bans and penalties, temperature, top_k, top_p, min_p. Where every token is
banned none is chosen, greedy or not: the output ends with what it has. A beam search does the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from torch import Tensor

from prefixmux_server.engine.sampling.draw import draw
from prefixmux_server.engine.sampling.shaping import (
    SamplingRow,
    banned_tokens,
    forced_token,
    penalised,
    shape,
)


class Silence(Enum):
    """Why there is no next token."""

    BROKEN = "the logits are not finite"
    BANNED = "no token is allowed"


class Sampler:
    """`eos` are the ids that end a request unless it ignores them."""

    def __init__(self, eos: frozenset[int]) -> None:
        self._eos = eos

    def sample(self, logits: Tensor, rows: Sequence[SamplingRow]) -> list[int | Silence]:
        """One token per row of `logits [n, vocabulary]`, if there is one.

        `max` is used in place of `argmax`, which is several times slower in 16-bit on a CPU. A
        NaN anywhere in a row is its maximum; -inf is a model's own way to ban a token.
        """
        best, greedy = logits.max(dim=-1)
        tokens: list[int | Silence] = list(greedy.tolist())
        for index, finite in enumerate(best.isfinite().tolist()):
            row = rows[index]
            forced = forced_token(row)
            if not finite:
                tokens[index] = Silence.BROKEN
            elif forced is not None:
                tokens[index] = forced
            elif not self._is_settled(row, tokens[index]):
                tokens[index] = self._choose(logits[index], row)
        return tokens

    def _is_settled(self, row: SamplingRow, best: int | Silence) -> bool:
        """Greedy, and no rule touches the highest logit's token: it is the answer."""
        untouched = row.params.temperature == 0 and not penalised(row.params)
        return untouched and best not in banned_tokens(row, self._eos)

    def _choose(self, logits: Tensor, row: SamplingRow) -> int | Silence:
        scores = logits[None].float().clone()
        shape(scores, [row], self._eos)
        highest, token = scores[0].max(dim=-1)
        if not highest.isfinite():
            return Silence.BANNED
        if row.params.temperature == 0:
            return int(token)
        return draw(scores[0], row.params, row.index, len(row.output))
