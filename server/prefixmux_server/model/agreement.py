"""How far two answers of one model lie apart, and what rounding alone explains."""

from __future__ import annotations

import torch
from torch import Tensor

# Rounding of the type, grown through the layers: 4e-6, 3e-2 and 2e-1 in the worst of many random
# models, a tenth of that in most. A prefix that is lost or a rule that is forgotten lies beyond.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 6e-2, torch.bfloat16: 2.5e-1}


def difference(found: Tensor, expected: Tensor) -> float:
    """Of `[T, width]`, relative to how much `expected` varies; what all of a row's values have in
    common means nothing. NaN counts as infinitely far."""
    spread = (expected - expected.mean(-1, keepdim=True)).float().norm()
    apart = float((found.float() - expected.float()).norm() / spread.clamp_min(1e-6))
    return apart if apart == apart else float("inf")
