"""200 tasks that each can say one token only, 200,000 tokens, and a store in constant change.

Any token of an answer that is not its own version's proves that memory of another one was read;
so do logits that are not exactly those of its own prefix and its own last token.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from support.canary import Codes, save_canary
from support.churn import LONGEST, Churn
from support.models import load_folder
from support.shapes import shape_of
from support.sources import Counted
from support.tiny import LAYOUTS
from support.traffic import Traffic, Watch

from prefixmux_server.engine.build import assemble
from prefixmux_server.engine.fit import Limits
from prefixmux_server.memory.loader import PrefixLoader
from prefixmux_server.memory.residency import Residency
from prefixmux_server.memory.select import LayoutName, make_memory
from prefixmux_server.memory.source import StoreSource
from prefixmux_server.model.load import LoadedModel
from prefixmux_store.blobs import BlobStore
from prefixmux_store.files import OsFiles
from prefixmux_store.store import PrefixStore

TASKS = 200
TOKENS = 100_000  # by each of the two layouts
# One virtual token is 1 KiB: room for about 50 prefixes in host memory, 25 on the device.
HOST_BYTES, DEVICE_BYTES = 1_100_000, 500_000
KV_TOKENS = 7_000


@dataclass(frozen=True)
class Bench:
    """Traffic over an engine whose prefixes come from a store, and the count of reads."""

    traffic: Traffic
    source: Counted


def make_bench(
    layout: LayoutName, loaded: LoadedModel, codes: Codes, store: PrefixStore, root: Path
) -> Bench:
    rng, wake, watch = random.Random(layout), threading.Event(), Watch(codes)
    shape, device = shape_of(loaded), torch.device("cpu")
    blobs = BlobStore(root, OsFiles())
    source = Counted(StoreSource(blobs, shape, torch.float32, pin=False))
    loader = PrefixLoader(source, ThreadPoolExecutor(2), wake.set)
    memory = make_memory(layout, loaded.specs, KV_TOKENS, torch.float32, device, poison=True)
    residency = Residency(memory, loader, host_bytes=HOST_BYTES, device_bytes=DEVICE_BYTES)
    limits = Limits(max_rows=64, max_tokens=80, context=loaded.context)
    engine = assemble(loaded, memory, residency, limits, failpoints=watch)
    churn = Churn(store, codes, shape, rng)
    return Bench(Traffic(engine, churn, blobs, watch, wake, rng), source)


@pytest.fixture(scope="module")
def codes() -> Codes:
    return Codes.make()


@pytest.fixture(scope="module")
def loaded(codes: Codes, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_folder(save_canary(tmp_path_factory.mktemp("canary"), codes))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PrefixStore]:
    with PrefixStore.open(tmp_path / "store") as opened:
        yield opened


def test_no_two_tokens_are_alike(codes: Codes) -> None:
    """A version's own token leads by more than half of its score: nothing is said by chance."""
    alike = codes.rows @ codes.rows.T - torch.eye(len(codes.rows))
    assert float(alike.max()) < 0.5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_200_tasks_never_hear_each_other(
    layout: LayoutName, loaded: LoadedModel, codes: Codes, store: PrefixStore, tmp_path: Path
) -> None:
    bench = make_bench(layout, loaded, codes, store, tmp_path / "store")
    traffic, churn = bench.traffic, bench.traffic.churn
    churn.create([(f"tenant-{n % 4}", f"task-{n}") for n in range(TASKS)])
    try:
        traffic.run(TOKENS)
    finally:
        traffic.engine.close()
    assert traffic.count["tokens"] >= TOKENS
    assert traffic.count["foreign"] == 0
    assert traffic.watch.compared >= TOKENS
    assert traffic.watch.wrong == 0
    check_that_much_happened(bench, layout)


def check_that_much_happened(bench: Bench, layout: LayoutName) -> None:
    """Else nothing foreign could have been heard."""
    count, done = bench.traffic.count, bench.traffic.churn.done
    assert set(bench.traffic.lengths) == set(range(1, LONGEST + 1))
    assert bench.source.reloads > 300
    assert count["to disk"] > 300, "prefixes have to be evicted all the time"
    assert count["to device"] > 300 or layout == "rows"
    assert count["refused"] > 10, "requests have to meet files that are gone"
    assert count["outlived its file"] > 5
    assert count["bare"] > 50
    assert done["uploads"] > TASKS + 100
    assert min(done["switches"], done["deleted tasks"], done["collected files"]) > 20
