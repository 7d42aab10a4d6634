"""From logits to the next token, row by row.

Order: what is forced, bans and penalties, temperature, top_k, top_p, min_p.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from prefixmux_server.engine.draw import draw
from prefixmux_server.engine.shaping import (
    SamplingRow,
    banned_tokens,
    forced_token,
    penalised,
    shape,
)


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
            row = rows[index]
            forced = forced_token(row)
            if not finite:
                tokens[index] = None
            elif forced is not None:
                tokens[index] = forced
            elif not self._is_settled(row, tokens[index]):
                tokens[index] = self._choose(logits[index], row)
        return tokens

    def _is_settled(self, row: SamplingRow, best: int | None) -> bool:
        """Greedy, and no rule touches the highest logit's token: it is the answer."""
        untouched = row.params.temperature == 0 and not penalised(row.params)
        return untouched and best not in banned_tokens(row, self._eos)

    def _choose(self, logits: Tensor, row: SamplingRow) -> int:
        scores = logits[None].float().clone()
        shape(scores, [row], self._eos)
        highest, token = scores[0].max(dim=-1)
        # Where every token is banned there is nothing to draw from; the first one is as good.
        if row.params.temperature == 0 or not highest.isfinite():
            return int(token)
        return draw(scores[0], row.params, len(row.output))
