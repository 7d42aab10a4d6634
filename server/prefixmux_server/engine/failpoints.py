"""Where tests may break a step, without patching anything."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


class Failpoints:
    """Does nothing; a test gives the engine a subclass that raises or alters."""

    def before_forward(self, ids: Sequence[str]) -> None:
        """Called with the requests of each forward pass."""

    def after_forward(self, ids: Sequence[str], logits: Tensor) -> Tensor:
        """Called with the requests that get logits, and those, `[len(ids), vocabulary]`."""
        return logits
