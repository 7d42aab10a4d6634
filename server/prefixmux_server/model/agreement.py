"""How far two answers of one model lie apart, and what rounding alone explains."""

from __future__ import annotations

import torch
from torch import Tensor

# Rounding of the type, grown through the layers: tiny random models reach a third of these, and a
# prefix that is lost, shifted or biased otherwise lies beyond them.
TOLERANCE = {torch.float32: 5e-4, torch.float16: 5e-2, torch.bfloat16: 2e-1}


def difference(found: Tensor, expected: Tensor) -> float:
    """Of `[T, width]`, relative to how much `expected` varies; what all of a row's values have in
    common means nothing. NaN counts as infinitely far."""
    spread = (expected - expected.mean(-1, keepdim=True)).float().norm()
    apart = float((found.float() - expected.float()).norm() / spread.clamp_min(1e-6))
    return apart if apart == apart else float("inf")
