"""Stores of earlier releases: opened, brought up to date, and used on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from prefixmux_store.connections import Connections
from prefixmux_store.errors import StoreUnusable
from prefixmux_store.opening import CATALOGUE_NAME
from prefixmux_store.store import PrefixStore
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
    assert schema(old) == 3
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
    columns = []
    for root in (old, folder / "new"):
        with closing(sqlite3.connect(root / CATALOGUE_NAME)) as db:
            columns.append(db.execute("SELECT * FROM pragma_table_info('version')").fetchall())
    assert columns[0] == columns[1]
