"""Reparameterised prefixes to what they stand for: the MLP applied, keys and values laid out.

Sums are made in double precision and rounded once at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from prefixmux_store.convert.checkpoints import Array
from prefixmux_store.errors import InvalidPrefix, UnsupportedMethod
from prefixmux_store.format import RawTensor

Double: TypeAlias = npt.NDArray[np.float64]
Activation: TypeAlias = Callable[[Double], Double]


@dataclass(frozen=True)
class Heads:
    """How many values a token has at one site: layers * 2 * heads * width."""

    layers: int
    heads: int
    width: int

    @property
    def columns(self) -> int:
        return 2 * self.layers * self.heads * self.width


def activation(name: str) -> Activation:
    """Raises `UnsupportedMethod`."""
    known: Mapping[str, Activation] = {
        "tanh": np.tanh,
        "relu": lambda x: np.maximum(x, 0.0),
        "sigmoid": lambda x: 1.0 / (1.0 + np.exp(-x)),
        "silu": lambda x: x / (1.0 + np.exp(-x)),
        "swish": lambda x: x / (1.0 + np.exp(-x)),
    }
    if name not in known:
        raise UnsupportedMethod(
            f"Prefixes through an MLP with {name[:40]!r} are not supported; with"
            f" {', '.join(sorted(known))} they are."
        )
    return known[name]


def apply_mlp(
    tokens: Array, tensors: Mapping[str, Array], name: str, between: Activation = np.tanh
) -> Array:
    """`[P, in]` to `[P, out]` through the linear layers `name`.0, .2 and so on, which are all
    there are, with the activation between them."""
    result = tokens.astype(np.float64)
    for place in linear_places(tensors, name):
        weight, bias = tensors[f"{name}.{place}.weight"], tensors.get(f"{name}.{place}.bias")
        if bias is None or weight.ndim != 2 or bias.shape != weight.shape[:1]:
            raise InvalidPrefix("shape", f"Layer {name}.{place} needs weight and bias that match.")
        if weight.shape[1] != result.shape[1]:
            raise InvalidPrefix(
                "shape",
                f"Layer {name}.{place} takes {weight.shape[1]} values; it gets {result.shape[1]}.",
            )
        result = between(result) if place else result
        result = result @ weight.T.astype(np.float64) + bias
    return result.astype(np.float32)


def linear_places(tensors: Mapping[str, Array], name: str) -> Sequence[int]:
    """The numbers of the linear layers, two steps apart from 0, as far as there are any."""
    places: list[int] = []
    while f"{name}.{2 * len(places)}.weight" in tensors:
        places.append(2 * len(places))
    if not places:
        raise InvalidPrefix("names", f"The checkpoint needs a layer {name}.0.")
    return places


def key_values(flat: Array, heads: Heads) -> RawTensor:
    """`[P, 2L*H*D]`, of which slice 2l holds layer l's keys and 2l + 1 its values, to the native
    `[L, 2, P, H, D]`."""
    if flat.ndim != 2 or flat.shape[1] != heads.columns:
        raise InvalidPrefix(
            "shape",
            f"{heads.layers} layers of {heads.heads} heads with {heads.width} values make"
            f" {heads.columns} values per token; the checkpoint has {flat.shape[-1]}.",
        )
    sizes = (flat.shape[0], heads.layers, 2, heads.heads, heads.width)
    return raw(flat.reshape(sizes).transpose(1, 2, 0, 3, 4))


def raw(values: Array) -> RawTensor:
    """As F32."""
    whole = np.ascontiguousarray(values, dtype="<f4")
    return RawTensor("F32", whole.shape, memoryview(whole.tobytes()))
