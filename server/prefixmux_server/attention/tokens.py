"""How tokens, rows and pages are picked out of a tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def index(values: Sequence[int]) -> slice | Tensor:
    """A slice where the values follow each other, as they mostly do: it copies nothing."""
    if values and list(values) == list(range(values[0], values[0] + len(values))):
        return slice(values[0], values[0] + len(values))
    return torch.tensor(values, dtype=torch.long)
