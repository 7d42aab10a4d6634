"""Tensors as native prefix files, as a client would write them."""

from __future__ import annotations

import torch
from torch import Tensor

from prefixmux_store.format import PrefixMeta, RawTensor, encode
from prefixmux_store.tensors import DType
from support.slow import Piece

_DTYPES: dict[torch.dtype, DType] = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
}


def native_file(piece: Piece) -> bytes:
    """What the piece holds and nothing more: no claim about the model, no provenance."""
    tensors = {site: _raw(kv) for site, kv in piece.sites.items()}
    if piece.embeddings is not None:
        tensors["embeddings"] = _raw(piece.embeddings)
    offset = {"decoder": piece.offset} if "decoder" in piece.sites else None
    ids = piece.token_ids or None
    meta = PrefixMeta(method=piece.method, position_offset=offset, token_ids=ids)
    return encode(tensors, meta)


def tensor_of(raw: RawTensor) -> Tensor:
    """Values as they are stored."""
    dtype = next(dtype for dtype, name in _DTYPES.items() if name == raw.dtype)
    return torch.frombuffer(bytearray(raw.data), dtype=dtype).view(raw.shape)


def _raw(tensor: Tensor) -> RawTensor:
    data = tensor.contiguous().view(torch.uint8).numpy().tobytes()
    return RawTensor(_DTYPES[tensor.dtype], tuple(tensor.shape), memoryview(data))
