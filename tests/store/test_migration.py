"""Stores of earlier releases: opened, brought up to date, and used on."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from prefixmux_store.connections import Connections
from prefixmux_store.errors import StoreUnusable
from prefixmux_store.names import digest_of
from prefixmux_store.opening import CATALOGUE_NAME
from prefixmux_store.schema import MIGRATIONS
from prefixmux_store.store import PrefixStore
from prefixmux_store.tenants import Footprint, TenantLimits
from prefixmux_store.types import Defaults, Part
from store.makers import prefix

TENANT = "default"
# What release 0.1 wrote.
SCHEMA_1 = """
CREATE TABLE task (
    tenant TEXT NOT NULL, task_id TEXT NOT NULL, active INTEGER,
    created_at REAL NOT NULL, updated_at REAL NOT NULL,
    PRIMARY KEY (tenant, task_id)
) WITHOUT ROWID;
CREATE TABLE version (
    tenant TEXT NOT NULL, task_id TEXT NOT NULL, version INTEGER NOT NULL,
    digests TEXT NOT NULL, method TEXT NOT NULL, sites TEXT NOT NULL,
    position_offset TEXT NOT NULL, prefix_tokens INTEGER NOT NULL, bytes INTEGER NOT NULL,
    base_model TEXT, description TEXT, created_at REAL NOT NULL,
    PRIMARY KEY (tenant, task_id, version),
    FOREIGN KEY (tenant, task_id) REFERENCES task (tenant, task_id) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE TABLE number (
    tenant TEXT NOT NULL, task_id TEXT NOT NULL, last INTEGER NOT NULL,
    PRIMARY KEY (tenant, task_id)
) WITHOUT ROWID;
PRAGMA user_version = 1
"""


@pytest.fixture
def old(folder: Path) -> Path:
    """A store of schema 1 with one task of one version, numbered 4."""
    root = folder / "old"
    with PrefixStore.open(root) as store:
        digest = store.stage(TENANT, prefix()).digest
    for path in root.glob(f"{CATALOGUE_NAME}*"):
        path.unlink()
    with closing(sqlite3.connect(root / CATALOGUE_NAME)) as db:
        db.executescript(SCHEMA_1)
        db.execute("INSERT INTO task VALUES ('default', 'a', 4, 1.0, 2.0)")
        db.execute("INSERT INTO number VALUES ('default', 'a', 4)")
        values = ("default", "a", 4, f'["{digest}"]', "PREFIX_TUNING", '{"decoder": 3}')
        rest = ('{"decoder": 3}', 3, 544, "tiny", None, 1.5)
        marks = ", ".join("?" * 12)
        db.execute(f"INSERT INTO version VALUES ({marks})", (*values, *rest))
        db.commit()
    return root


def schema(root: Path) -> int:
    with closing(sqlite3.connect(root / CATALOGUE_NAME)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def test_an_old_store_is_brought_up_to_date_and_works_on(old: Path) -> None:
    with PrefixStore.open(old) as store:
        found = store.resolve(TENANT, "a", None)
        assert found.parts == (Part("a", 4, found.digests[0], 3, "PREFIX_TUNING"),)
        assert (found.defaults, found.base_model, found.created_at) == (Defaults(), "tiny", 1.5)
        assert store.verify().ok
        assert store.read_file(TENANT, "a", 4) == prefix()
        staged = store.stage(TENANT, prefix())
        assert store.commit(TENANT, "a", staged) == (found, False)
        newer, _ = store.commit(TENANT, "a", staged, defaults=Defaults("{input}"))
        assert newer.version == 5
        both, _ = store.compose(TENANT, "b", [("a", 4), ("a", 5)])
        assert both.prefix_tokens == 6
    assert schema(old) == len(MIGRATIONS)
    with PrefixStore.open(old) as store:
        assert store.resolve(TENANT, "b", None) == both


def test_a_migration_is_whole_or_not_at_all(old: Path) -> None:
    broken = "ALTER TABLE version ADD COLUMN parts TEXT; ALTER TABLE nothing ADD COLUMN x"
    with pytest.raises(StoreUnusable):
        Connections(old / CATALOGUE_NAME, (SCHEMA_1, broken))
    assert schema(old) == 1
    with PrefixStore.open(old) as store:
        assert store.resolve(TENANT, "a", None).version == 4


def test_a_new_store_and_an_old_one_end_up_alike(old: Path, folder: Path) -> None:
    PrefixStore.open(old).close()
    PrefixStore.open(folder / "new").close()
    statement = """SELECT m.type, m.name, m.tbl_name, c.name, c.type, c."notnull", c.pk
        FROM sqlite_schema m LEFT JOIN pragma_table_info(m.name) c ORDER BY m.name, c.cid"""
    found = []
    for root in (old, folder / "new"):
        with closing(sqlite3.connect(root / CATALOGUE_NAME)) as db:
            found.append(db.execute(statement).fetchall())
    assert found[0] == found[1]


@pytest.fixture
def second(folder: Path) -> Path:
    """A store of schema 2: x and y-task of one file each, the same; z of two versions; c, composed
    of x, of a task that is gone, and of x again; and d, composed of nothing that is left."""
    root = folder / "second"
    with PrefixStore.open(root) as store:
        files = [store.stage(TENANT, prefix(content)).digest for content in range(4)]
        store.stage("other", prefix(0))
    for path in root.glob(f"{CATALOGUE_NAME}*"):
        path.unlink()
    Connections(root / CATALOGUE_NAME, MIGRATIONS[:2]).close()
    with closing(sqlite3.connect(root / CATALOGUE_NAME)) as db:
        insert(db, "x", 1, [files[0]])
        insert(db, "y-task", 3, [files[0]])
        insert(db, "z", 1, [files[0]])
        insert(db, "z", 2, [files[1]])
        insert(db, "c", 1, [files[0], files[2], files[0]], composed=True)
        insert(db, "d", 1, [files[3]], composed=True)
        insert(db, "x", 1, [files[0]], tenant="other")
        db.commit()
    return root


def insert(
    db: sqlite3.Connection,
    task_id: str,
    version: int,
    digests: list[str],
    *,
    composed: bool = False,
    tenant: str = TENANT,
) -> None:
    db.execute("INSERT OR IGNORE INTO task VALUES (?, ?, 1, 1.0, 2.0)", (tenant, task_id))
    part = {"task_id": "gone", "version": 1, "tokens": 3, "method": "PREFIX_TUNING"}
    parts = json.dumps([{**part, "digest": digest} for digest in digests]) if composed else None
    size = len(digests) * len(prefix())
    about = ("PREFIX_TUNING", "{}", "{}", 3, size, None, None, 1.5, parts, None, None)
    values = (tenant, task_id, version, json.dumps(digests), *about)
    db.execute(f"INSERT INTO version VALUES ({', '.join('?' * len(values))})", values)


def test_what_a_tenant_has_is_counted_in_an_old_store(second: Path) -> None:
    size = len(prefix())
    with PrefixStore.open(second) as store:
        assert store.footprint(TENANT) == Footprint(5, 6, 4 * size)
        assert store.footprint("other") == Footprint(1, 1, size)
        store.delete_task(TENANT, "x")
        store.delete_task(TENANT, "d")
        assert store.footprint(TENANT) == Footprint(3, 4, 3 * size)
        store.gc(-10)
        assert store.verify().ok
        for task_id in ("y-task", "z", "c"):
            store.delete_task(TENANT, task_id)
        assert store.footprint(TENANT) == Footprint()
        assert store.gc(-10).blobs == 3


def test_an_old_store_has_no_keys_and_no_limits(second: Path) -> None:
    with PrefixStore.open(second) as store:
        assert not store.keys.required()
        assert store.tenants.limits(TENANT) == TenantLimits()
        assert store.usage.of(TENANT) == ()
        assert [known.name for known in store.tenants.list()] == [TENANT, "other"]


def test_a_file_that_is_missing_counts_once_it_is_back(second: Path) -> None:
    lost = second / "blobs" / TENANT / digest_of(prefix(3)).removeprefix("sha256:")
    lost.unlink()
    with PrefixStore.open(second) as store:
        assert store.footprint(TENANT).bytes == 3 * len(prefix())
        store.commit(TENANT, "e", store.stage(TENANT, prefix(3)))
        assert store.footprint(TENANT).bytes == 4 * len(prefix())


def test_an_older_release_that_still_runs_keeps_the_count_right(second: Path) -> None:
    """It opened the store before, and knows nothing of sums."""
    with closing(sqlite3.connect(second / CATALOGUE_NAME)) as older:
        older.execute("PRAGMA foreign_keys = ON")
        with PrefixStore.open(second) as store:
            insert(older, "a-new-task", 1, [digest_of(prefix(9))])
            older.execute("DELETE FROM task WHERE tenant = ? AND task_id = 'z'", (TENANT,))
            older.commit()
            found = store.list_tasks(TENANT, query="task").items
            assert [task.task_id for task in found] == ["a-new-task", "y-task"]
            assert store.footprint(TENANT) == Footprint(5, 5, 4 * len(prefix()))
