"""The n-th file operation fails, for every n: a typed error, nothing lost, nothing half there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from prefixmux_store.errors import (
    StorageFailed,
    StorageFull,
    StoreError,
    StoreReadOnly,
    StoreUnusable,
)
from prefixmux_store.names import digest_of
from prefixmux_store.store import PrefixStore
from store.faulty import Fault, FaultyFiles
from store.ledger import TENANT, Op, observed, perform
from store.makers import fast_folder, prefix

NEVER = 10**9
FAULTS: tuple[Fault, ...] = ("EIO", "ENOSPC", "EDQUOT", "EMFILE", "short write", "sync EIO")


def put(store: PrefixStore, task_id: str, content: int, tenant: str = TENANT) -> None:
    store.commit(tenant, task_id, store.stage(tenant, prefix(content)))


WORK: dict[str, Callable[[PrefixStore, Path], object]] = {
    "replace": lambda store, _: put(store, "old", 1),
    "new task": lambda store, _: put(store, "new", 1),
    "new tenant": lambda store, _: put(store, "old", 1, "other"),
    "same again": lambda store, _: put(store, "old", 0),
    "collect": lambda store, _: store.gc(-10),
    "discard": lambda store, _: store.discard(TENANT, digest_of(prefix(6))),
    "read": lambda store, _: store.read_file(TENANT, "old", None),
    "verify": lambda store, _: store.verify(),
    "delete": lambda store, _: store.delete_task(TENANT, "gone"),
    "backup": lambda store, folder: store.backup(folder / "copy"),
}


def least(work: str, fault: Fault) -> int:
    """How many calls there must have been to fail, for the loop to mean something."""
    writes = {"replace", "new task", "new tenant", "same again", "backup"}
    if fault == "short write":
        return 1 if work in writes else 0
    if fault == "sync EIO":
        return 3 if work in writes else 0
    return {"delete": 0, "read": 1, "verify": 2, "collect": 5, "discard": 3}.get(work, 8)


def prepared(root: Path) -> None:
    with PrefixStore.open(root) as store:
        put(store, "old", 0)
        put(store, "gone", 5)
        put(store, "leftover", 6)
        store.delete_task(TENANT, "leftover")


def attempt(work: str, fault: Fault, at: int, *, forever: bool) -> bool:
    """One round with a fault at call `at`; whether the work got that far."""
    with fast_folder() as folder:
        root = folder / "store"
        prepared(root)
        files = FaultyFiles(fault, NEVER, forever=forever)
        with PrefixStore.open(root, files) as store:
            files.at, files.calls = at, 0
            before = observed(store)
            error = caught(lambda: WORK[work](store, folder))
            struck = files.struck
            if error:
                check_error(error, fault, work)
            if isinstance(error, StoreReadOnly):
                # Nothing is synced a second time, and nothing more is written.
                assert isinstance(caught(lambda: put(store, "old", 9)), StoreReadOnly)
                assert files.syncs_after == 0
            files.at = NEVER
            assert store.read_file(TENANT, "old", 1) == prefix(0)
            after = observed(store)
            if error:
                assert after == before
        check_disk(root, after)
        return struck


def caught(work: Callable[[], object]) -> StoreError | None:
    try:
        work()
    except StoreError as error:
        return error
    return None


def check_error(error: StoreError, fault: Fault, work: str) -> None:
    assert fault != "short write"
    assert "/" not in error.message or isinstance(error, StoreUnusable)
    if work == "backup":
        assert isinstance(error, StorageFailed | StoreUnusable)
    elif fault == "sync EIO":
        assert isinstance(error, StoreReadOnly)
    elif fault in {"ENOSPC", "EDQUOT"}:
        # Not every call can say that it is the disk that is full: a read cannot.
        assert isinstance(error, StorageFull | StorageFailed | StoreReadOnly)
    else:
        assert isinstance(error, StorageFailed | StoreReadOnly)


def check_disk(root: Path, shown: object) -> None:
    """A new process finds what the old one showed, and can go on."""
    with PrefixStore.open(root) as store:
        assert observed(store) == shown
        assert store.verify().ok
        assert not list(root.rglob(".tmp-*"))
        assert perform(store, Op("put", "later", 7)) == "new 1"
        store.gc(-10)
        assert store.verify().ok


@pytest.mark.parametrize("forever", [False, True], ids=["once", "forever"])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("work", WORK)
def test_every_call_fails_in_turn(work: str, fault: Fault, forever: bool) -> None:
    at = 1
    while attempt(work, fault, at, forever=forever):
        at += 1
        assert at < 100
    assert at - 1 >= least(work, fault)


@pytest.mark.parametrize("fault", ["EIO", "ENOSPC", "EMFILE", "EACCES", "sync EIO"])
def test_opening_fails_clearly_at_every_call(folder: Path, fault: Fault) -> None:
    at, fresh = 1, 0
    while True:
        files = FaultyFiles(fault, at)
        root = folder / f"store-{fresh}" / "below"
        error = caught(lambda: PrefixStore.open(root, files).close())  # noqa: B023
        if not files.struck:
            break
        assert error is None or isinstance(error, StoreUnusable), error
        with PrefixStore.open(root) as store:
            put(store, "task", 0)
            assert store.verify().ok
        at, fresh = at + 1, fresh + 1
    assert at > 2


@pytest.mark.parametrize("fault", ["EIO", "ENOSPC", "EMFILE"])
def test_recovery_fails_clearly_at_every_call(folder: Path, fault: Fault) -> None:
    root = folder / "store"
    prepared(root)
    half = root / "blobs" / TENANT / ".tmp-half"
    at = 1
    while True:
        half.write_bytes(b"half")
        files = FaultyFiles(fault, at)
        error = caught(lambda: PrefixStore.open(root, files).close())  # noqa: B023
        if not files.struck:
            break
        assert error is None or isinstance(error, StoreUnusable), error
        at += 1
    assert not half.exists()
    assert at > 4
    with PrefixStore.open(root) as store:
        assert store.verify().ok


def test_no_descriptor_is_lost_whatever_fails(folder: Path) -> None:
    root = folder / "store"
    prepared(root)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for at in range(1, 14):
        files = FaultyFiles("EIO", at)
        assert caught(lambda: PrefixStore.open(root, files).close()) or files.calls < at  # noqa: B023
    with PrefixStore.open(root) as store:
        idle = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        for number in range(200):
            perform(store, Op("put", "task", number % 3))
        assert len(os.listdir("/proc/self/fd")) <= idle + 1  # noqa: PTH208
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
