"""What a model does to attention scores beside scaling them, layer by layer.

Found when the model is bound, kept in its `SiteSpec`, applied by every attention backend.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class RelativeBias:
    """T5's bias by distance: `table[h, r + reach]` for a key `r` positions after its query.

    `table` is `[H, 2 * reach + 1]`; farther distances take the value at its end. Keys outside the
    position system (a prefix with offset 0) get no bias.
    """

    table: Tensor

    @property
    def reach(self) -> int:
        return self.table.shape[1] // 2


@dataclass(frozen=True)
class ScoreRules:
    """In this order: scaling, `softcap` (cap * tanh(scores / cap)), `bias`, then the masks.

    With a `window` W a query at position q sees keys at positions above q - W only; a prefix
    counts as positions like any token, unless it is outside the position system.
    """

    window: int | None = None
    softcap: float | None = None
    bias: RelativeBias | None = None

    @property
    def plain(self) -> bool:
        return self.window is None and self.softcap is None and self.bias is None

    @property
    def positional(self) -> bool:
        return self.window is not None or self.bias is not None


PLAIN = ScoreRules()
# The position of keys outside the position system: after every query, where no window ends.
OUTSIDE = 1 << 40
