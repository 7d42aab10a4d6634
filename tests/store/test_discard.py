"""Uploads that are taken back, alone and beside others of the same content."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from prefixmux_store.errors import InvalidTenant
from prefixmux_store.files import FileStat, OsFiles
from prefixmux_store.names import digest_of
from prefixmux_store.store import PrefixStore
from store.makers import prefix

DIGEST = digest_of(prefix(0))
# Far longer than either operation takes when nothing holds it up.
LONG_ENOUGH_S = 0.5


class Interleaved(OsFiles):
    """Starts something in another thread when a file is just looked at or about to be removed,
    and gives it the time to go wrong."""

    def __init__(self) -> None:
        self.after_stat: Callable[[], None] | None = None
        self.before_unlink: Callable[[], None] | None = None

    def stat(self, path: Path) -> FileStat:
        found = super().stat(path)
        start, self.after_stat = self.after_stat, None
        if start:
            start()
        return found

    def unlink(self, path: Path) -> None:
        start, self.before_unlink = self.before_unlink, None
        if start:
            start()
        super().unlink(path)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def put(store: PrefixStore, task_id: str, tenant: str = "default") -> None:
    store.commit(tenant, task_id, store.stage(tenant, prefix(0)))


def path_in(root: Path, tenant: str = "default") -> Path:
    return root / "blobs" / tenant / DIGEST.removeprefix("sha256:")


def test_a_staged_file_goes_at_once(store: PrefixStore, folder: Path) -> None:
    store.stage("default", prefix(0))
    store.stage("default", prefix(1))
    store.stage("other", prefix(0))
    store.discard("default", DIGEST)
    assert not path_in(folder / "store").exists()
    assert path_in(folder / "store", "other").is_file()
    assert store.gc(-10).blobs == 2


def test_what_is_not_there_needs_no_taking_back(store: PrefixStore, folder: Path) -> None:
    for digest in (DIGEST, "sha256:../x", ""):
        store.discard("default", digest)
    store.stage("default", prefix(1))
    store.discard("default", DIGEST)
    assert store.gc(-10).blobs == 1
    with pytest.raises(InvalidTenant):
        store.discard("../x", DIGEST)


def test_a_version_of_the_tenant_keeps_its_file(store: PrefixStore, folder: Path) -> None:
    put(store, "task")
    put(store, "task", "other")
    store.stage("default", prefix(0))
    store.discard("default", DIGEST)
    assert store.read_file("default", "task", None) == prefix(0)
    store.delete_task("default", "task")
    store.discard("default", DIGEST)
    assert not path_in(folder / "store").exists()
    assert store.read_file("other", "task", None) == prefix(0)


def test_a_discard_between_upload_and_commit_loses_nothing(store: PrefixStore) -> None:
    staged = store.stage("default", prefix(0))
    store.discard("default", DIGEST)
    store.commit("default", "task", staged)
    assert store.read_file("default", "task", None) == prefix(0)


@pytest.mark.parametrize("other_process", [False, True])
def test_a_commit_waits_for_a_discard_that_has_begun(
    folder: Path, pool: ThreadPoolExecutor, other_process: bool
) -> None:
    files = Interleaved()
    root = folder / "store"
    with PrefixStore.open(root, files) as store, PrefixStore.open(root) as second:
        staged = store.stage("default", prefix(0))
        started: list[Future[object]] = []

        def commit() -> None:
            committing = second if other_process else store
            started.append(pool.submit(committing.commit, "default", "task", staged))
            with pytest.raises(TimeoutError):
                started[0].result(LONG_ENOUGH_S)

        files.before_unlink = commit
        store.discard("default", DIGEST)
        started[0].result()
        assert store.read_file("default", "task", None) == prefix(0)


@pytest.mark.parametrize("other_process", [False, True])
def test_a_discard_waits_for_a_commit_that_has_found_its_file(
    folder: Path, pool: ThreadPoolExecutor, other_process: bool
) -> None:
    files = Interleaved()
    root = folder / "store"
    with PrefixStore.open(root, files) as store, PrefixStore.open(root) as second:
        staged = store.stage("default", prefix(0))
        started: list[Future[None]] = []

        def discard() -> None:
            discarding = second if other_process else store
            started.append(pool.submit(discarding.discard, "default", DIGEST))
            with pytest.raises(TimeoutError):
                started[0].result(LONG_ENOUGH_S)

        files.after_stat = discard
        store.commit("default", "task", staged)
        started[0].result()
        assert store.read_file("default", "task", None) == prefix(0)


def test_a_backup_is_not_robbed_of_its_files(folder: Path, pool: ThreadPoolExecutor) -> None:
    """The copy's catalogue names a version that is deleted while files are still copied."""
    started: list[Future[None]] = []

    class Meddling(OsFiles):
        def read(self, path: Path) -> bytes:
            store.delete_task("default", "task")
            started.append(pool.submit(store.discard, "default", DIGEST))
            with pytest.raises(TimeoutError):
                started[0].result(LONG_ENOUGH_S)
            return super().read(path)

    with PrefixStore.open(folder / "store", Meddling()) as store:
        put(store, "task")
        assert store.backup(folder / "copy").ok
        started[0].result()
        assert not path_in(folder / "store").exists()
    with PrefixStore.open(folder / "copy") as copy:
        assert copy.read_file("default", "task", None) == prefix(0)
