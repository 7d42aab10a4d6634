"""File operations, written down as they happen, so that a crash can be thought out afterwards.

SQLite's own files do not pass through `Files`: its durability is trusted, with the settings that
it asks for (WAL, synchronous FULL; another test reads them). So each catalogue transaction stands
in the log as one atomic point, with the whole catalogue as it was then, and what matters is on
which side of it every other operation was made durable.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prefixmux_store.catalogue import Commit, Draft
from prefixmux_store.files import OsFiles
from prefixmux_store.opening import CATALOGUE_NAME
from prefixmux_store.sqlite_catalogue import SqliteCatalogue
from prefixmux_store.store import PrefixStore
from prefixmux_store.types import Task, Version
from store.ledger import EMPTY, Op, State, expected, perform


@dataclass(frozen=True)
class Folder:
    path: Path


@dataclass(frozen=True)
class Link:
    """A name for a new, empty file; files are told apart by number, not by name."""

    path: Path
    file: int


@dataclass(frozen=True)
class Write:
    file: int
    data: bytes


@dataclass(frozen=True)
class Sync:
    file: int


@dataclass(frozen=True)
class Rename:
    source: Path
    target: Path
    file: int


@dataclass(frozen=True)
class Unlink:
    path: Path


@dataclass(frozen=True)
class SyncFolder:
    path: Path


@dataclass(frozen=True)
class Catalogued:
    """A transaction: the catalogue's file from here on."""

    content: bytes


@dataclass(frozen=True)
class Begun:
    """An operation of the store begins that leads from one state to another."""

    before: State
    after: State


@dataclass(frozen=True)
class Returned:
    """The operation was acknowledged."""


Event = Folder | Link | Write | Sync | Rename | Unlink | SyncFolder | Catalogued | Begun | Returned


class RecordingFiles(OsFiles):
    """Does everything, and writes down what changes something or makes a change durable."""

    def __init__(self, root: Path, log: list[Event]) -> None:
        self._root = root
        self._log = log
        self._open: dict[int, int] = {}
        self._names: dict[Path, int] = {}
        self._files = 0

    def create(self, path: Path) -> int:
        descriptor = super().create(path)
        self._files += 1
        self._open[descriptor] = self._names[path] = self._files
        self._log.append(Link(self._inside(path), self._files))
        return descriptor

    def write(self, descriptor: int, data: memoryview) -> int:
        written = super().write(descriptor, data)
        self._log.append(Write(self._open[descriptor], bytes(data[:written])))
        return written

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        self._log.append(Sync(self._open[descriptor]))

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self._names[target] = self._names.pop(source)
        self._log.append(Rename(self._inside(source), self._inside(target), self._names[target]))

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self._log.append(Unlink(self._inside(path)))

    def make_folder(self, path: Path) -> bool:
        made = super().make_folder(path)
        if made:
            self._log.append(Folder(self._inside(path)))
        return made

    def sync_folder(self, path: Path) -> None:
        super().sync_folder(path)
        self._log.append(SyncFolder(self._inside(path)))

    def _inside(self, path: Path) -> Path:
        return path.relative_to(self._root)


class RecordingCatalogue(SqliteCatalogue):
    """Logs the catalogue after every transaction that changes it."""

    def __init__(self, path: Path, log: list[Event]) -> None:
        super().__init__(path)
        self._path = path
        self._log = log
        self._write_down()

    def add(self, draft: Draft, commit: Commit) -> tuple[Version, bool]:
        result = super().add(draft, commit)
        self._write_down()
        return result

    def activate(self, tenant: str, task_id: str, version: int, now: float) -> Task:
        result = super().activate(tenant, task_id, version, now)
        self._write_down()
        return result

    def delete_task(self, tenant: str, task_id: str) -> None:
        super().delete_task(tenant, task_id)
        self._write_down()

    def delete_version(self, tenant: str, task_id: str, version: int, now: float) -> None:
        super().delete_version(tenant, task_id, version, now)
        self._write_down()

    def _write_down(self) -> None:
        with contextlib.closing(sqlite3.connect(self._path)) as db:
            self._log.append(Catalogued(db.serialize()))


def record(root: Path, ops: tuple[Op, ...]) -> list[Event]:
    """Everything that a fresh store in `root` does for these operations."""
    PrefixStore.open(root).close()
    log: list[Event] = []
    catalogue = RecordingCatalogue(root / CATALOGUE_NAME, log)
    files = RecordingFiles(root, log)
    state = EMPTY
    with PrefixStore(root, files, catalogue, contextlib.ExitStack(), clock=lambda: 1e10) as store:
        for op in ops:
            after, outcome = expected(state, op)
            log.append(Begun(state, after))
            if perform(store, op) != outcome:
                raise AssertionError(f"{op} in {ops}")
            log.append(Returned())
            state = after
    return log


def prefixes(log: list[Event]) -> Iterator[list[Event]]:
    """The log up to every moment at which something has just changed."""
    for end in range(1, len(log) + 1):
        yield log[:end]
