"""Keys and usage from several processes at once, and from processes that are killed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from prefixmux_store.errors import StoreReadOnly, TenantFull
from prefixmux_store.keys import key_hash
from prefixmux_store.store import PrefixStore
from prefixmux_store.usage import UsageEntry
from store.accountant import SHARED, TENANT, batch
from store.faulty import FaultyFiles
from store.makers import prefix

NAMES = ("one", "two", "three")


def accountant(root: Path, name: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "store.accountant", str(root), name, str(count)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        stdout=subprocess.PIPE,
        text=True,
    )


def requests(store: PrefixStore) -> dict[str | None, int]:
    """By task, once the other counts were seen to fit."""
    for entry in store.usage.of(TENANT):
        assert entry.counts == tuple(entry.requests * count for count in (1, 20, 3, 4))
    return {entry.task_id: entry.requests for entry in store.usage.of(TENANT)}


def check_keys(store: PrefixStore, told: list[str]) -> None:
    """What was acknowledged holds. The last key may have been revoked by one that was killed before
    it could say so."""
    pairs = [line.split() for line in told if line != "used"]
    made = [key for word, key in pairs if word == "made"]
    revoked = {key for word, key in pairs if word == "revoked"}
    lost = {key for key in made if store.keys.find(key_hash(key)) is None}
    assert made
    assert revoked <= lost <= {*revoked, made[-1]}


def test_processes_add_up_exactly(tmp_path: Path) -> None:
    root, rounds = tmp_path / "store", 30
    workers = [accountant(root, name, rounds) for name in NAMES]
    told = [worker.communicate(timeout=60)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    with PrefixStore.open(root) as store:
        found = requests(store)
        assert found.pop(SHARED) == rounds * len(NAMES)
        assert found == {task: rounds for name in NAMES for task in (name, f"{name}-too")}
        for text in told:
            check_keys(store, text.splitlines())
        assert len(store.keys.list()) == rounds * len(NAMES)


def test_what_was_acknowledged_survives_a_kill_and_counts_once(tmp_path: Path) -> None:
    draw = random.Random(5)
    root = tmp_path / "store"
    counted = dict.fromkeys(NAMES, 0)
    for cycle in range(12):
        name = NAMES[cycle % len(NAMES)]
        worker = accountant(root, name, 10_000)
        assert worker.stdout is not None
        lines = [worker.stdout.readline() for _ in range(draw.randrange(1, 30))]
        worker.kill()
        told = [line.strip() for line in [*lines, *worker.stdout] if line.endswith("\n")]
        worker.stdout.close()
        worker.wait()
        acknowledged = told.count("used")
        with PrefixStore.open(root) as store:
            check_keys(store, told)
            found = requests(store)
            grown = found.get(name, 0) - counted[name]
            assert acknowledged <= grown <= acknowledged + 1
            counted[name] += grown
            # A batch is there whole or not at all.
            assert found.get(f"{name}-too", 0) == counted[name]
            assert found.get(SHARED, 0) == sum(counted.values())
            assert store.keys.required()


def test_threads_add_up_exactly(store: PrefixStore) -> None:
    def work(number: int) -> None:
        for _ in range(25):
            store.usage.add(batch(f"t{number}"))
            assert store.keys.find(key_hash(store.keys.create(TENANT, ["read"]).key))
            store.tenants.set(f"tenant-{number}", max_tasks=number + 1)

    with ThreadPoolExecutor(6) as pool:
        for future in [pool.submit(work, number) for number in range(6)]:
            future.result()
    assert requests(store)[SHARED] == 150
    assert len(store.keys.list()) == 150
    limits = [store.tenants.limits(f"tenant-{number}").max_tasks for number in range(6)]
    assert limits == [1, 2, 3, 4, 5, 6]


def test_uploads_from_everywhere_do_not_pass_a_limit(store: PrefixStore) -> None:
    store.tenants.set(TENANT, max_bytes=5 * len(prefix()))

    def upload(number: int) -> bool:
        try:
            store.commit(TENANT, f"t{number}", store.stage(TENANT, prefix(number)))
        except TenantFull:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        kept = list(pool.map(upload, range(24)))
    assert sum(kept) == 5
    assert store.footprint(TENANT).bytes == 5 * len(prefix())
    assert [task.task_id for task in store.list_tasks(TENANT).items] == sorted(
        f"t{number}" for number, there in enumerate(kept) if there
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda store: store.keys.create(TENANT, ["read"]),
        lambda store: store.keys.revoke("key_0"),
        lambda store: store.tenants.set(TENANT, max_tasks=1),
        lambda store: store.usage.add([UsageEntry(TENANT, None, 1, 1, 1, 1)]),
    ],
)
def test_after_a_failed_sync_nothing_changes_and_keys_still_work(
    folder: Path, change: Callable[[PrefixStore], object]
) -> None:
    files = FaultyFiles("sync EIO", 10**9)
    with PrefixStore.open(folder / "store", files) as store:
        key = store.keys.create(TENANT, ["read"])
        files.at, files.calls = 1, 0
        with pytest.raises(StoreReadOnly):
            store.stage(TENANT, prefix())
        with pytest.raises(StoreReadOnly):
            change(store)
        assert store.keys.find(key_hash(key.key)) == key.record
        assert store.keys.required()
        assert store.usage.of(TENANT) == ()
