"""What the engine reads of the store: exact sizes before, typed refusals after."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from prefixmux_server.memory.prefix import PrefixKey
from prefixmux_server.memory.source import PrefixLoadError, StoreSource
from prefixmux_store.blobs import BlobStore
from prefixmux_store.files import OsFiles
from prefixmux_store.format import encode
from prefixmux_store.meta import PrefixMeta
from prefixmux_store.tensors import DType, RawTensor
from prefixmux_store.validate import ModelShape, SiteShape

SHAPE = ModelShape(
    architecture="Tiny",
    family="causal",
    layers=2,
    kv_heads=1,
    head_dim=4,
    hidden=8,
    vocabulary=10,
    fingerprint=None,
    methods=("PREFIX_TUNING",),
    sites={"decoder": SiteShape(2, 1, 4, 4)},
    max_prefix_tokens=8,
)
DTYPES: dict[DType, torch.dtype] = {"F32": torch.float32, "F16": torch.float16}


def stored(root: Path, dtype: DType, tokens: int) -> PrefixKey:
    shape = (2, 2, tokens, 1, 4)
    data = torch.ones(shape, dtype=DTYPES[dtype]).numpy().tobytes()
    file = encode({"decoder": RawTensor(dtype, shape, memoryview(data))}, PrefixMeta())
    return PrefixKey("t", BlobStore(root, OsFiles()).write("t", file))


def source(root: Path, shape: ModelShape = SHAPE) -> StoreSource:
    return StoreSource(BlobStore(root, OsFiles()), shape, torch.float32, pin=False)


@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_the_size_is_known_exactly_before_the_load(tmp_path: Path, dtype: DType) -> None:
    key = stored(tmp_path, dtype, 7)
    found = source(tmp_path)
    assert found.size(key) == found.load(key).nbytes


def test_a_missing_file_has_no_size_and_is_unavailable(tmp_path: Path) -> None:
    key = PrefixKey("t", "sha256:" + "0" * 64)
    assert source(tmp_path).size(key) == 0
    with pytest.raises(PrefixLoadError) as caught:
        source(tmp_path).load(key)
    assert caught.value.code == "prefix_unavailable"


def test_a_prefix_of_another_model_says_so(tmp_path: Path) -> None:
    other = replace(SHAPE, layers=3, sites={"decoder": SiteShape(3, 1, 4, 4)})
    with pytest.raises(PrefixLoadError, match="3") as caught:
        source(tmp_path, other).load(stored(tmp_path, "F32", 2))
    assert caught.value.code == "incompatible_prefix"
