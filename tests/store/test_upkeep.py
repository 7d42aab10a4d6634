"""Verification, collection, backup, opening: work on a whole store."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from prefixmux_store.connections import Connections
from prefixmux_store.errors import (
    BlobCorrupt,
    BlobMissing,
    SchemaTooNew,
    StorageFailed,
    StorageFull,
    StoreBusy,
    StoreError,
    StoreReadOnly,
    StoreUnusable,
)
from prefixmux_store.files import OsFiles
from prefixmux_store.names import digest_of
from prefixmux_store.opening import CATALOGUE_NAME
from prefixmux_store.schema import MIGRATIONS
from prefixmux_store.sqlite_catalogue import SqliteCatalogue
from prefixmux_store.store import PrefixStore
from store.makers import prefix


def put(store: PrefixStore, task_id: str, seed: int) -> Path:
    """Where the blob is."""
    store.commit("default", task_id, store.stage("default", prefix(seed)))
    return Path("blobs", "default", digest_of(prefix(seed)).removeprefix("sha256:"))


def test_verify_names_what_is_missing_and_what_is_damaged(store: PrefixStore, folder: Path) -> None:
    paths = [folder / "store" / put(store, f"task-{seed}", seed) for seed in range(4)]
    assert store.verify().ok
    paths[0].unlink()
    data = bytearray(paths[1].read_bytes())
    data[-1] ^= 1
    paths[1].write_bytes(data)
    paths[2].write_bytes(paths[3].read_bytes())
    report = store.verify()
    assert not report.ok
    assert report.checked == 4
    assert report.missing == (("default", digest_of(prefix(0))),)
    assert set(report.corrupt) == {("default", digest_of(prefix(seed))) for seed in (1, 2)}


def test_every_changed_bit_is_noticed(store: PrefixStore, folder: Path) -> None:
    path = folder / "store" / put(store, "task", 0)
    good = path.read_bytes()
    for place in range(0, len(good) * 8, 37):
        data = bytearray(good)
        data[place // 8] ^= 1 << place % 8
        path.write_bytes(data)
        with pytest.raises(BlobCorrupt) as caught:
            store.read_file("default", "task", None)
        assert caught.value.code == "prefix_unavailable"
    for size in range(0, len(good), 29):
        path.write_bytes(good[:size])
        with pytest.raises(BlobCorrupt):
            store.read_file("default", "task", None)


def test_another_upload_heals_a_damaged_blob(store: PrefixStore, folder: Path) -> None:
    path = folder / "store" / put(store, "task", 0)
    path.write_bytes(b"rot")
    assert put(store, "task", 0)
    assert store.read_file("default", "task", None) == prefix(0)
    assert store.get_task("default", "task").versions == 1


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "nothing"])
def test_only_plain_files_are_read(store: PrefixStore, folder: Path, kind: str) -> None:
    path = folder / "store" / put(store, "task", 0)
    elsewhere = folder / "elsewhere"
    path.rename(elsewhere)
    if kind == "link":
        path.symlink_to(elsewhere)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(BlobMissing):
        store.read_file("default", "task", None)


def test_collection_takes_what_no_version_needs(store: PrefixStore, folder: Path) -> None:
    kept = folder / "store" / put(store, "kept", 1)
    shared = folder / "store" / put(store, "one", 2)
    put(store, "two", 2)
    gone = folder / "store" / put(store, "gone", 3)
    staged = folder / "store" / "blobs" / "default" / digest_of(prefix(4)).removeprefix("sha256:")
    store.stage("default", prefix(4))
    store.delete_task("default", "one")
    store.delete_task("default", "gone")
    assert store.gc(3600).blobs == 0
    assert staged.is_file()
    assert gone.is_file()
    later = time.time() - 7200
    os.utime(gone, (later, later))
    size = gone.stat().st_size
    report = store.gc(3600)
    assert (report.blobs, report.bytes) == (1, size)
    assert not gone.exists()
    assert all(path.is_file() for path in (kept, shared, staged))
    assert store.verify().ok


def test_an_upload_restarts_the_grace_of_an_old_blob(store: PrefixStore, folder: Path) -> None:
    path = folder / "store" / put(store, "task", 1)
    store.delete_task("default", "task")
    os.utime(path, (1, 1))
    staged = store.stage("default", prefix(1))
    assert store.gc(3600).blobs == 0
    assert store.commit("default", "task", staged)[0].version == 2


def test_a_collection_between_upload_and_commit_loses_nothing(store: PrefixStore) -> None:
    staged = store.stage("default", prefix(1))
    assert store.gc(-10).blobs == 1
    store.commit("default", "task", staged)
    assert store.read_file("default", "task", None) == prefix(1)


def test_uploads_go_on_while_a_collection_lists_the_files(folder: Path) -> None:
    """What is uploaded then is new to the list of what is used, and yet is kept."""

    class Uploading(OsFiles):
        uploads = 0

        def names(self, path: Path) -> list[str]:
            if self.uploads and path.name == "default":
                self.uploads -= 1
                content = 10 + self.uploads
                with PrefixStore.open(folder / "store") as other:
                    staged = other.stage("default", prefix(content))
                    other.commit("default", f"t{content}", staged)
            return super().names(path)

    files = Uploading()
    with PrefixStore.open(folder / "store", files) as store:
        staged = [store.stage("default", prefix(content)) for content in range(3)]
        store.commit("default", "kept", staged[0])
        files.uploads = 2
        assert store.gc(-10).blobs == 2
        assert files.uploads == 0
        assert store.verify().checked == 3
        assert store.verify().ok


def test_foreign_files_in_the_folder_are_left_alone(store: PrefixStore, folder: Path) -> None:
    put(store, "task", 1)
    store.delete_task("default", "task")
    note = folder / "store" / "blobs" / "default" / "README"
    note.write_text("mine")
    (folder / "store" / "blobs" / "Not A Tenant").mkdir()
    assert store.gc(-10).blobs == 1
    assert note.read_text() == "mine"


def test_a_backup_is_a_store(store: PrefixStore, folder: Path) -> None:
    for seed in range(3):
        put(store, f"task-{seed}", seed)
    put(store, "task-0", 9)
    store.delete_task("default", "task-2")
    assert store.backup(folder / "some" / "where").ok
    put(store, "task-1", 8)
    with PrefixStore.open(folder / "some" / "where") as copy:
        assert copy.verify().ok
        assert [task.task_id for task in copy.list_tasks("default").items] == ["task-0", "task-1"]
        assert copy.read_file("default", "task-0", 1) == prefix(0)
        assert copy.read_file("default", "task-0", None) == prefix(9)
        assert copy.get_task("default", "task-1").versions == 1
        assert copy.commit("default", "task-2", copy.stage("default", prefix(1)))[0].version == 2


def test_a_backup_overwrites_no_store_and_reports_what_it_could_not_copy(
    store: PrefixStore, folder: Path
) -> None:
    path = folder / "store" / put(store, "task", 0)
    with pytest.raises(StoreUnusable, match="a store in"):
        store.backup(folder / "store")
    path.write_bytes(b"rot")
    report = store.backup(folder / "copy")
    assert report.corrupt == (("default", digest_of(prefix(0))),)


def test_opening_removes_what_dead_uploads_left(folder: Path) -> None:
    with PrefixStore.open(folder / "store") as store:
        put(store, "task", 0)
    half = folder / "store" / "blobs" / "default" / ".tmp-0123"
    half.write_bytes(b"half")
    with PrefixStore.open(folder / "store") as store:
        assert not half.exists()
        half.write_bytes(b"half")
        with PrefixStore.open(folder / "store") as second:
            # Somebody else is here, whose upload this may be.
            assert half.exists()
            assert second.gc(0).temporary == 0
        os.utime(half, (1, 1))
        assert store.gc(0).temporary == 1
        assert store.verify().ok


def test_places_that_cannot_hold_a_store(folder: Path) -> None:
    (folder / "file").write_text("x")
    for path in (folder / "file", folder / "file" / "below", Path("/proc/self/nowhere")):
        with pytest.raises(StoreUnusable, match=str(path)):
            PrefixStore.open(path)
    (folder / "store").mkdir()
    (folder / "store" / "catalogue.sqlite3").write_bytes(b"something else" * 100)
    with pytest.raises(StoreUnusable):
        PrefixStore.open(folder / "store")


def test_a_newer_schema_is_left_alone(folder: Path) -> None:
    with PrefixStore.open(folder / "store") as store:
        put(store, "task", 0)
    path = folder / "store" / "catalogue.sqlite3"
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    before = path.read_bytes()
    with pytest.raises(SchemaTooNew, match="schema 99") as caught:
        PrefixStore.open(folder / "store")
    assert (caught.value.found, caught.value.known) == (99, len(MIGRATIONS))
    assert path.read_bytes() == before


def test_the_catalogue_survives_a_cut_at_any_moment(folder: Path) -> None:
    """The settings that SQLite's promise of durability rests on."""
    connections = Connections(folder / "db", ("CREATE TABLE t (x)",))
    with connections.reading() as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)
        assert db.execute("PRAGMA foreign_keys").fetchone() == (1,)
    connections.close()


def test_migrations_run_once_and_in_order(folder: Path) -> None:
    first = "CREATE TABLE t (x)"
    second = "ALTER TABLE t ADD COLUMN y; INSERT INTO t VALUES (1, 2)"
    for scripts in ((first,), (first, second), (first, second)):
        Connections(folder / "db", scripts).close()
    db = sqlite3.connect(folder / "db")
    assert db.execute("SELECT x, y FROM t").fetchall() == [(1, 2)]
    db.close()


def test_a_full_catalogue_is_a_full_store(folder: Path) -> None:
    connections = Connections(folder / "db", ("CREATE TABLE t (x)",))

    def fill() -> None:
        with connections.writing() as db:
            db.execute("PRAGMA max_page_count = 4")
            db.execute("INSERT INTO t VALUES (zeroblob(100000))")

    with pytest.raises(StorageFull) as caught:
        fill()
    assert caught.value.code == "storage_full"
    with connections.writing() as db:
        db.execute("INSERT INTO t VALUES (1)")
    connections.close()


def test_a_busy_catalogue_says_so(folder: Path) -> None:
    one = Connections(folder / "db", ("CREATE TABLE t (x)",), busy_s=0.01)
    two = Connections(folder / "db", ("CREATE TABLE t (x)",), busy_s=0.01)

    def write() -> None:
        with two.writing() as db:
            db.execute("INSERT INTO t VALUES (1)")

    with one.writing(), pytest.raises(StoreBusy):
        write()
    write()
    one.close()
    two.close()


@pytest.mark.parametrize(
    ("number", "writing", "reading"),
    [
        (sqlite3.SQLITE_IOERR_FSYNC, StoreReadOnly, StorageFailed),
        (sqlite3.SQLITE_IOERR_WRITE, StoreReadOnly, StorageFailed),
        (sqlite3.SQLITE_READONLY, StoreReadOnly, StorageFailed),
        (sqlite3.SQLITE_CORRUPT, StorageFailed, StorageFailed),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, StoreBusy, StoreBusy),
        (sqlite3.SQLITE_FULL, StorageFull, StorageFull),
    ],
)
def test_errors_of_the_catalogues_disk(
    folder: Path, number: int, writing: type[StoreError], reading: type[StoreError]
) -> None:
    error = sqlite3.OperationalError("disk")
    error.sqlite_errorcode = number
    connections = Connections(folder / "db", ("CREATE TABLE t (x)",))

    def write() -> None:
        with connections.writing() as db:
            db.execute("INSERT INTO t VALUES (1)")
            raise error

    with pytest.raises(writing):
        write()
    with pytest.raises(reading), connections.reading():
        raise error
    with connections.reading() as db:
        assert db.execute("SELECT * FROM t").fetchall() == []
    connections.close()


def test_the_cause_of_a_failed_statement_is_logged_and_no_disk_is_blamed(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    connections = Connections(folder / "db", ("CREATE TABLE t (x)",))
    with pytest.raises(StorageFailed) as caught, connections.reading() as db:
        db.execute("SELECT * FROM missing WHERE x = ?", ("of a client",))
    assert caught.value.message == "The store's catalogue reported an error; try again later."
    assert [(record.name, record.levelname) for record in caplog.records] == [
        ("prefixmux_store.connections", "ERROR")
    ]
    assert "SQLITE_ERROR: no such table: missing" in caplog.text
    assert "of a client" not in caplog.text
    caplog.clear()
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
    error.sqlite_errorname = "SQLITE_IOERR_READ"
    with pytest.raises(StorageFailed, match="disk reported an error"), connections.reading():
        raise error
    assert "SQLITE_IOERR_READ: disk I/O error" in caplog.text
    connections.close()


def test_a_store_whose_catalogue_failed_to_sync_takes_no_more_changes(folder: Path) -> None:
    class Failing(SqliteCatalogue):
        def delete_task(self, tenant: str, task_id: str) -> None:
            raise StoreReadOnly

    root = folder / "store"
    with PrefixStore.open(root) as store:
        put(store, "task", 0)
    catalogue = Failing(root / CATALOGUE_NAME)
    with PrefixStore(root, OsFiles(), catalogue, ExitStack()) as store:
        with pytest.raises(StoreReadOnly):
            store.delete_task("default", "task")
        for change in (
            lambda: put(store, "task", 1),
            lambda: store.activate("default", "task", 1),
            lambda: store.delete_version("default", "task", 1),
            lambda: store.gc(0),
            lambda: store.discard("default", digest_of(prefix(0))),
        ):
            with pytest.raises(StoreReadOnly) as caught:
                change()
            assert caught.value.code == "prefix_unavailable"
        assert store.read_file("default", "task", None) == prefix(0)
    with PrefixStore.open(root) as store:
        store.delete_task("default", "task")


def test_a_new_store_is_synced_into_its_folder_and_those_above(folder: Path) -> None:
    class Watching(OsFiles):
        """What each folder held when it was last synced."""

        def __init__(self) -> None:
            self.held: dict[Path, set[str]] = {}

        def sync_folder(self, path: Path) -> None:
            super().sync_folder(path)
            self.held[path] = set(self.names(path))

    files = Watching()
    root = folder / "some" / "store"
    PrefixStore.open(root, files).close()
    assert "some" in files.held[folder]
    assert "store" in files.held[folder / "some"]
    assert CATALOGUE_NAME in files.held[root]
