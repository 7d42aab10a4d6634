"""Raw tensors as the file holds them, and the rules for their values.

Values are judged by their bits, so that bfloat16 needs no conversion and no copy is made of more
than one chunk.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from prefixmux_store.errors import InvalidPrefix

DType = Literal["F32", "F16", "BF16"]

# Trained keys and values stay below a few hundred, embeddings below one hundred. Up to 10,000 a
# value survives a cast to fp16 (65,504) with room for sums, and scores stay finite in fp32.
MAX_MAGNITUDE = 10_000.0

_CHUNK = 1 << 20


@dataclass(frozen=True)
class _Layout:
    """Bits of |x|: at `infinite` and above x is not finite; `cap` is the largest one allowed."""

    word: npt.DTypeLike
    infinite: int
    cap: int


def _bits(value: float, kind: str) -> int:
    return int.from_bytes(np.array(value, dtype=kind).tobytes(), "little")


def _layouts() -> Mapping[str, _Layout]:
    return {
        "F32": _Layout("<u4", 0x7F80_0000, _bits(MAX_MAGNITUDE, "<f4")),
        "F16": _Layout("<u2", 0x7C00, _bits(MAX_MAGNITUDE, "<f2")),
        "BF16": _Layout("<u2", 0x7F80, _bits(MAX_MAGNITUDE, "<f4") >> 16),
    }


_LAYOUTS: Mapping[str, _Layout] = _layouts()
ITEM_BYTES: Mapping[str, int] = {"F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True)
class RawTensor:
    """`data` is little endian, C order, exactly `shape` times the item size."""

    dtype: DType
    shape: tuple[int, ...]
    data: memoryview = field(repr=False)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]

    def words(self) -> npt.NDArray[np.unsignedinteger]:
        """The bits as unsigned integers in `shape`; no copy. Exact for all three dtypes."""
        flat = np.frombuffer(self.data, dtype=_LAYOUTS[self.dtype].word)
        return flat.reshape(self.shape)

    def floats(self) -> npt.NDArray[np.float32]:
        """Widened, which is exact for all three dtypes."""
        words = self.words()
        if self.dtype == "F16":
            return words.view("<f2").astype(np.float32)
        bits = words if self.dtype == "F32" else words.astype("<u4") << 16
        return bits.view("<f4").astype(np.float32)


def check_values(tensors: Mapping[str, RawTensor]) -> None:
    """Raises `InvalidPrefix` non_finite, else magnitude. Subnormals and -0.0 are fine."""
    largest = {name: _largest_bits(tensor) for name, tensor in tensors.items()}
    for name, bits in largest.items():
        if bits >= _LAYOUTS[tensors[name].dtype].infinite:
            raise InvalidPrefix("non_finite", f"Tensor {name} holds NaN or infinite values.")
    for name, bits in largest.items():
        if bits > _LAYOUTS[tensors[name].dtype].cap:
            message = f"Tensor {name} holds values beyond {MAX_MAGNITUDE:g} in magnitude."
            raise InvalidPrefix("magnitude", message)


def _largest_bits(tensor: RawTensor) -> int:
    # Without the sign bit, IEEE floats are ordered as their bits are.
    words = tensor.words().reshape(-1)
    mask = words.dtype.type((1 << (8 * words.itemsize - 1)) - 1)
    chunks = (words[at : at + _CHUNK] for at in range(0, words.size, _CHUNK))
    return max(int((chunk & mask).max()) for chunk in chunks)
