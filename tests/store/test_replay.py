"""Power cuts, thought out: every moment of every short history, every outcome worth a look."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

import pytest

from prefixmux_store.opening import CATALOGUE_NAME
from prefixmux_store.store import PrefixStore
from store.crashes import Disk, disks
from store.ledger import EMPTY, TENANT, Op, expected, observed, perform
from store.makers import fast_folder, prefix
from store.recording import (
    Begun,
    Event,
    RecordingCatalogue,
    RecordingFiles,
    Returned,
    Sync,
    SyncFolder,
    prefixes,
    record,
)

# A new task, another version of it, another task with the same content, a deletion, an upload
# that is taken back, a composition that may outlive its task, a collection.
OPS = (
    Op("put", "a", 0),
    Op("put", "a", 1),
    Op("put", "b", 0),
    Op("delete_task", "a"),
    Op("discard", content=0),
    Op("compose", "c", parts=("a", "a")),
    Op("gc"),
)


def histories(length: int) -> list[list[Event]]:
    """Logs of all sequences; the shorter ones are their beginnings."""
    logs = []
    for number, ops in enumerate(itertools.product(OPS, repeat=length)):
        with fast_folder() as folder:
            logs.append(record(folder / f"store-{number}", ops))
    return logs


def outcomes(logs: Iterable[list[Event]]) -> set[Disk]:
    """All different outcomes of all cuts; temporary names differ and so do their outcomes."""
    return {
        disk
        for number, log in enumerate(logs)
        for moment in prefixes(log)
        for disk in disks(moment, seed=number)
    }


def is_right(disk: Disk, root: Path) -> bool:
    """Opens a store on what the cut left, looks at all of it, and goes on working."""
    disk.lay_out(root, CATALOGUE_NAME)
    try:
        with PrefixStore.open(root) as store:
            shown = observed(store)
            right = any(shown == state.tasks for state in disk.allowed) and store.verify().ok
            right &= not list(root.rglob(".tmp-*"))
            if right:
                perform(store, Op("put", "d", 2))
                perform(store, Op("gc"))
                right = store.verify().ok and observed(store).keys() == {*shown, "d"}
        return right
    finally:
        shutil.rmtree(root)


def wrong(found: Iterable[Disk]) -> list[Disk]:
    with fast_folder() as folder:
        return [disk for disk in found if not is_right(disk, folder / "store")]


def test_every_cut_in_every_history_of_three_operations() -> None:
    found = outcomes(histories(3))
    assert len(found) > 700
    assert wrong(found) == []


@pytest.mark.long
def test_every_cut_in_every_history_of_five_operations() -> None:
    found = outcomes(histories(5))
    assert len(found) > 20_000
    assert wrong(found) == []


def test_every_cut_when_a_commit_finds_the_file_of_an_upload_that_is_half_done(
    folder: Path,
) -> None:
    """Its own was taken back; the one it finds has a name that is not durable yet."""

    class Overtaken(RecordingFiles):
        after_rename: Callable[[], None] | None = None

        def rename(self, source: Path, target: Path) -> None:
            super().rename(source, target)
            overtake, self.after_rename = self.after_rename, None
            if overtake:
                overtake()

    root, log = folder / "store", list[Event]()
    PrefixStore.open(root).close()
    files, catalogue = Overtaken(root, log), RecordingCatalogue(root / CATALOGUE_NAME, log)
    with PrefixStore(root, files, catalogue, ExitStack()) as store:
        staged = store.stage(TENANT, prefix(0))
        store.discard(TENANT, staged.digest)

        def commit() -> None:
            log.append(Begun(EMPTY, expected(EMPTY, Op("put", "a", 0))[0]))
            store.commit(TENANT, "a", staged)
            log.append(Returned())

        files.after_rename = commit
        store.stage(TENANT, prefix(0))
    assert wrong(outcomes([log])) == []


@pytest.mark.parametrize("forgotten", [Sync, SyncFolder])
def test_a_store_that_forgot_to_sync_would_be_found_out(
    forgotten: type[Sync] | type[SyncFolder],
) -> None:
    with fast_folder() as folder:
        log = record(folder / "store", (OPS[0],))
    forgetful = [event for event in log if not isinstance(event, forgotten)]
    assert len(forgetful) < len(log)
    assert wrong(outcomes([forgetful])) != []
