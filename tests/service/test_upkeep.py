from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from prefixmux_server.service.prefixes.upkeep import collecting
from prefixmux_store.format import encode
from prefixmux_store.meta import PrefixMeta
from prefixmux_store.store import PrefixStore
from prefixmux_store.tensors import RawTensor


def native(fill: float) -> bytes:
    kv = np.full((1, 2, 3, 1, 4), fill, dtype="<f4")
    tensor = RawTensor("F32", kv.shape, memoryview(kv.tobytes()))
    return encode({"decoder": tensor}, PrefixMeta(method="PREFIX_TUNING"))


def blobs(root: Path) -> int:
    return sum(path.is_file() for path in (root / "blobs").rglob("*"))


async def collect_down_to(store: PrefixStore, root: Path, left: int) -> None:
    async with collecting(store, period=0.01, grace=-1):
        while blobs(root) > left:
            await asyncio.sleep(0.01)


def test_what_was_deleted_leaves_the_disk_while_the_server_runs(tmp_path: Path) -> None:
    with PrefixStore.open(tmp_path) as store:
        for number, task in enumerate(("kept", "gone")):
            store.commit("default", task, store.stage("default", native(number)))
        store.delete_task("default", "gone")
        asyncio.run(asyncio.wait_for(collect_down_to(store, tmp_path, 1), 20))
        assert store.read_file("default", "kept", None) == native(0)
        store.delete_task("default", "kept")
        asyncio.run(asyncio.wait_for(collect_down_to(store, tmp_path, 0), 20))
