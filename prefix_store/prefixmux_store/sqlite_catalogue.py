"""The catalogue in SQLite: statements of tasks and versions.

For one machine: WAL needs shared memory, which no network file system gives.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from prefixmux_store import search
from prefixmux_store.catalogue import Commit, Draft
from prefixmux_store.connections import Connections
from prefixmux_store.errors import (
    PreconditionFailed,
    TaskNotFound,
    VersionActive,
    VersionNotFound,
)
from prefixmux_store.quotas import check_grown, check_room
from prefixmux_store.rows import (
    TASK_COLUMNS,
    VERSION_COLUMNS,
    defaults_text,
    task_of,
    values_of,
    version_of,
)
from prefixmux_store.schema import MIGRATIONS
from prefixmux_store.tenants import footprint_of
from prefixmux_store.types import Task, Version

_TASK = f"""
SELECT {TASK_COLUMNS}, {VERSION_COLUMNS}
FROM task t LEFT JOIN version v
    ON v.tenant = t.tenant AND v.task_id = t.task_id AND v.version = t.active
WHERE t.tenant = ? AND t.task_id = ?
"""
# A task without the version asked for gives a row of nulls; no task gives no row.
_VERSION = f"""
SELECT {VERSION_COLUMNS} FROM task t LEFT JOIN version v
    ON v.tenant = t.tenant AND v.task_id = t.task_id AND v.version = coalesce(?, t.active)
WHERE t.tenant = ? AND t.task_id = ?
"""
_VERSIONS = f"""
SELECT {VERSION_COLUMNS} FROM task t LEFT JOIN version v
    ON v.tenant = t.tenant AND v.task_id = t.task_id AND v.version > ?
WHERE t.tenant = ? AND t.task_id = ? ORDER BY v.version LIMIT ?
"""
_SAME = f"""
SELECT {VERSION_COLUMNS} FROM version v WHERE v.tenant = ? AND v.task_id = ? AND v.digests = ?
    AND v.defaults IS ?
ORDER BY v.version DESC
"""
_NEXT = """
INSERT INTO number VALUES (?, ?, 1)
ON CONFLICT DO UPDATE SET last = last + 1 RETURNING last
"""

_LARGEST = 2**63 - 1


class SqliteCatalogue:
    """A catalogue in one file. Any number of processes may open it at once."""

    def __init__(self, path: Path) -> None:
        """Raises `SchemaTooNew`, else `StoreUnusable`."""
        self._connections = Connections(path, MIGRATIONS)

    @property
    def connections(self) -> Connections:
        return self._connections

    def add(self, draft: Draft, commit: Commit) -> tuple[Version, bool]:
        with self._connections.writing() as db:
            key = (draft.tenant, draft.task_id)
            live = db.execute("SELECT 1 FROM task WHERE tenant = ? AND task_id = ?", key).fetchone()
            if live and commit.create_only:
                raise PreconditionFailed
            commit.prepare()
            before = footprint_of(db, draft.tenant)
            if not live:
                values = (*key, commit.now, commit.now)
                db.execute("INSERT INTO task VALUES (?, ?, NULL, ?, ?)", values)
            same = _same(db, draft)
            version = same or _insert(db, draft, commit.now)
            if commit.activate:
                _activate(db, version, commit.now)
            elif not same:
                _touch(db, *key, commit.now)
            check_grown(db, draft.tenant, before)
            return version, not same

    def task(self, tenant: str, task_id: str) -> Task:
        with self._connections.reading() as db:
            row = db.execute(_TASK, (tenant, task_id)).fetchone()
        if row is None:
            raise TaskNotFound
        return task_of(row)

    def tasks(self, tenant: str, limit: int, after: str, query: str) -> list[Task]:
        with self._connections.reading() as db:
            return search.tasks(db, tenant, limit, after, query)

    def version(self, tenant: str, task_id: str, version: int | None) -> Version:
        number = None if version is None else _number(version)
        with self._connections.reading() as db:
            row = db.execute(_VERSION, (number, tenant, task_id)).fetchone()
        if row is None:
            raise TaskNotFound
        if row[0] is None:
            if version is None:
                raise VersionNotFound("The task has no active version: activate one or name one.")
            raise VersionNotFound
        return version_of(row)

    def versions(self, tenant: str, task_id: str, limit: int, after: int) -> list[Version]:
        with self._connections.reading() as db:
            rows = db.execute(_VERSIONS, (after, tenant, task_id, limit)).fetchall()
        if not rows:
            raise TaskNotFound
        return [version_of(row) for row in rows if row[0] is not None]

    def activate(self, tenant: str, task_id: str, version: int, now: float) -> Task:
        with self._connections.writing() as db:
            row = db.execute(_VERSION, (_number(version), tenant, task_id)).fetchone()
            if row is None:
                raise TaskNotFound
            if row[0] is None:
                raise VersionNotFound
            _activate(db, version_of(row), now)
            return task_of(db.execute(_TASK, (tenant, task_id)).fetchone())

    def delete_task(self, tenant: str, task_id: str) -> None:
        with self._connections.writing() as db:
            statement = "DELETE FROM task WHERE tenant = ? AND task_id = ?"
            if db.execute(statement, (tenant, task_id)).rowcount == 0:
                raise TaskNotFound

    def delete_version(self, tenant: str, task_id: str, version: int, now: float) -> None:
        with self._connections.writing() as db:
            key = (tenant, task_id)
            statement = "SELECT active FROM task WHERE tenant = ? AND task_id = ?"
            task = db.execute(statement, key).fetchone()
            if task is None:
                raise TaskNotFound
            if task[0] == version:
                raise VersionActive
            statement = "DELETE FROM version WHERE tenant = ? AND task_id = ? AND version = ?"
            if db.execute(statement, (*key, _number(version))).rowcount == 0:
                raise VersionNotFound
            _touch(db, *key, now)

    def references(self) -> list[tuple[str, str]]:
        # From the versions themselves: what checks a store should not trust its sums.
        with self._connections.reading() as db:
            rows = db.execute("SELECT DISTINCT tenant, digests FROM version").fetchall()
        return sorted({(tenant, digest) for tenant, text in rows for digest in json.loads(text)})

    def used(self, tenant: str) -> frozenset[str]:
        with self._connections.reading() as db:
            rows = db.execute("SELECT digest FROM blob WHERE tenant = ?", (tenant,)).fetchall()
        return frozenset(digest for (digest,) in rows)

    @contextlib.contextmanager
    def sweeping(self, tenant: str, digests: Sequence[str]) -> Iterator[frozenset[str]]:
        statement = "SELECT 1 FROM blob WHERE tenant = ? AND digest = ?"
        with self._connections.writing() as db:
            yield frozenset(
                digest for digest in digests if db.execute(statement, (tenant, digest)).fetchone()
            )

    def check_room(self, tenant: str, digest: str, size: int) -> None:
        with self._connections.reading() as db:
            check_room(db, tenant, digest, size)

    def unsized(self) -> list[tuple[str, str]]:
        with self._connections.reading() as db:
            return db.execute("SELECT tenant, digest FROM blob WHERE bytes IS NULL").fetchall()

    def set_size(self, tenant: str, digest: str, size: int) -> None:
        statement = "UPDATE blob SET bytes = ? WHERE tenant = ? AND digest = ? AND bytes IS NULL"
        with self._connections.writing() as db:
            db.execute(statement, (size, tenant, digest))

    def backup(self, path: Path) -> None:
        self._connections.backup(path)

    def close(self) -> None:
        self._connections.close()


def _same(db: sqlite3.Connection, draft: Draft) -> Version | None:
    """The newest version that says the same of itself, where its content came from included."""
    content = (json.dumps(draft.content.digests), defaults_text(draft.defaults))
    rows = db.execute(_SAME, (draft.tenant, draft.task_id, *content)).fetchall()
    for version in map(version_of, rows):
        if version.parts == draft.numbered(version.version, version.created_at).parts:
            return version
    return None


def _insert(db: sqlite3.Connection, draft: Draft, now: float) -> Version:
    number = db.execute(_NEXT, (draft.tenant, draft.task_id)).fetchone()[0]
    version = draft.numbered(number, now)
    values = values_of(version)
    db.execute(f"INSERT INTO version VALUES ({', '.join('?' * len(values))})", values)
    return version


def _activate(db: sqlite3.Connection, version: Version, now: float) -> None:
    statement = "UPDATE task SET active = ?, updated_at = ? WHERE tenant = ? AND task_id = ?"
    db.execute(statement, (version.version, now, version.tenant, version.task_id))


def _touch(db: sqlite3.Connection, tenant: str, task_id: str, now: float) -> None:
    statement = "UPDATE task SET updated_at = ? WHERE tenant = ? AND task_id = ?"
    db.execute(statement, (now, tenant, task_id))


def _number(version: int) -> int:
    """A number that no version has, for those that SQLite could not hold."""
    return version if 0 < version <= _LARGEST else 0
