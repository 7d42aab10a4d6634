"""Small valid prefix files, and containers put together by hand to be wrong."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from prefixmux_store.format import PrefixMeta, RawTensor, encode
from prefixmux_store.tensors import DType
from prefixmux_store.validate import ModelShape, SiteShape

LAYERS, HEADS, WIDTH, HIDDEN = 2, 2, 4, 12

SHAPE = ModelShape(
    architecture="TinyForCausalLM",
    family="causal",
    layers=LAYERS,
    kv_heads=HEADS,
    head_dim=WIDTH,
    hidden=HIDDEN,
    vocabulary=96,
    fingerprint="sha256:" + "a" * 64,
    methods=("PREFIX_TUNING", "CARTRIDGE", "PROMPT_TUNING"),
    sites={"decoder": SiteShape(LAYERS, HEADS, WIDTH, WIDTH)},
    max_prefix_tokens=64,
)

# Of an encoder of three layers and a decoder of two.
SEQ2SEQ = replace(
    SHAPE,
    architecture="TinyForConditionalGeneration",
    family="seq2seq",
    sites={
        "decoder": SiteShape(LAYERS, HEADS, WIDTH, WIDTH),
        "encoder": SiteShape(3, HEADS, WIDTH, WIDTH),
        "cross": SiteShape(LAYERS, HEADS, WIDTH, WIDTH),
    },
)


def tensor(shape: tuple[int, ...], seed: int = 0, dtype: str = "F32") -> RawTensor:
    values = np.random.default_rng(seed).standard_normal(shape).astype("<f4")
    if dtype == "F16":
        data = values.astype("<f2").tobytes()
    elif dtype == "BF16":
        data = (values.view("<u4") >> 16).astype("<u2").tobytes()
    else:
        data = values.tobytes()
    return RawTensor(cast(DType, dtype), shape, memoryview(data))


def kv(tokens: int = 3, seed: int = 0, dtype: str = "F32") -> RawTensor:
    """Keys and values that fit `SHAPE`."""
    return tensor((LAYERS, 2, tokens, HEADS, WIDTH), seed, dtype)


def prefix(seed: int = 0, tokens: int = 3, dtype: str = "F32") -> bytes:
    """A native file that fits `SHAPE`; another seed gives other content."""
    return encode({"decoder": kv(tokens, seed, dtype)}, PrefixMeta())


def raw(header: bytes, body: bytes = b"") -> bytes:
    """A container around a header that is taken as it is."""
    return len(header).to_bytes(8, "little") + header + body


def entry(
    shape: object, offsets: object, dtype: object = "F32", **others: object
) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **others}


def box(
    tensors: Mapping[str, object], body: bytes = b"", metadata: object = None, **extra: object
) -> bytes:
    """A container of header entries; `metadata` as `__metadata__`, whatever it is."""
    header: dict[str, object] = {} if metadata is None else {"__metadata__": metadata}
    header |= dict(tensors) | extra
    return raw(json.dumps(header).encode(), body)


def described(text: str) -> bytes:
    """A valid decoder tensor with `text` as its description of itself."""
    good = entry([LAYERS, 2, 3, HEADS, WIDTH], [0, 384])
    return box({"decoder": good}, bytes(384), {"prefixmux": text})


@contextlib.contextmanager
def fast_folder() -> Iterator[Path]:
    """In memory where the system has such a place: for tests of logic, not of durability."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)
