"""Which activation modules have a faster form that computes the same function.

Only GELUs: fusing SiLU or ReLU, which torch computes in one pass, gains nothing measurable.

Knows functions, not models: where an activation stands, and whether the linear layer before it can
take it over, is found out by `dense`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.nn.functional import gelu
from transformers import activations as hf


@dataclass(frozen=True)
class PostOp:
    """What oneDNN applies to a linear layer's output before writing it, in its own words."""

    attr: str = "none"
    algorithm: str = ""


_TANH = PostOp("gelu", "tanh")
_ERF = PostOp("gelu", "none")

# Exact types: a subclass may compute something else.
_FUNCTIONS: dict[type[nn.Module], PostOp] = {
    hf.NewGELUActivation: _TANH,
    hf.FastGELUActivation: _TANH,
    hf.AccurateGELUActivation: _TANH,
    hf.GELUTanh: _TANH,
    hf.GELUActivation: _ERF,
}

# transformers writes these as chains of elementwise operations, each a pass over memory.
_SLOW = (hf.NewGELUActivation, hf.FastGELUActivation, hf.AccurateGELUActivation)


def post_op(activation: nn.Module) -> PostOp | None:
    """The post-op that computes this activation; None where there is none."""
    if type(activation) is nn.GELU:
        return _TANH if activation.approximate == "tanh" else _ERF
    return _FUNCTIONS.get(type(activation))


def one_kernel(activation: nn.Module) -> nn.Module | None:
    """The same function as one kernel; None where the activation is one already, or unknown."""
    slow = type(activation) in _SLOW or (
        type(activation) is hf.GELUTanh and getattr(activation.act, "func", None) is not gelu
    )
    return nn.GELU(approximate="tanh") if slow else None
