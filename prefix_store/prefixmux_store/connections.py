"""SQLite connections of one catalogue: settings, schema, transactions, typed errors.

Knows no tables but through the migration scripts it is given. WAL lets readers go on beside the
one writer; synchronous=FULL makes a commit durable before it returns.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from prefixmux_store.errors import (
    SchemaTooNew,
    StorageFailed,
    StorageFull,
    StoreBusy,
    StoreError,
    StoreReadOnly,
    StoreUnusable,
)

_BUSY_SECONDS = 15.0


class Connections:
    """Lends connections to threads, one at a time each, and opens as many as are in use."""

    def __init__(
        self, path: Path, migrations: Sequence[str], busy_s: float = _BUSY_SECONDS
    ) -> None:
        """Creates or migrates the schema; `migrations[n]` leads from schema n to n + 1. A writer
        waits `busy_s` seconds for one in another process.

        Raises `SchemaTooNew`, else `StoreUnusable`.
        """
        self._path = path
        self._busy_s = busy_s
        self._idle: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._writer = threading.Lock()
        self._closed = False
        try:
            with self._borrowed() as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                self._migrate(connection, migrations)
        except sqlite3.Error as error:
            message = f"The store's catalogue {path} cannot be opened: {error}"
            raise StoreUnusable(message) from error
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One statement sees one state; use one statement."""
        with _typed_errors(StorageFailed), self._borrowed() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, committed on leaving unless the body raises."""
        with (
            _typed_errors(StoreReadOnly),
            self._writer,
            self._borrowed() as connection,
            _transaction(connection),
        ):
            yield connection

    def backup(self, path: Path) -> None:
        with self.reading() as source, contextlib.closing(sqlite3.connect(path)) as target:
            source.backup(target)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop().close()

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        connection = connection or self._connect()
        try:
            yield connection
        except sqlite3.Error:
            # Its state after an error is not worth reasoning about.
            connection.close()
            raise
        except BaseException:
            self._give_back(connection)
            raise
        self._give_back(connection)

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=self._busy_s, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA trusted_schema = OFF")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _migrate(self, connection: sqlite3.Connection, migrations: Sequence[str]) -> None:
        with _transaction(connection):
            found = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if found > len(migrations):
                raise SchemaTooNew(found, len(migrations))
            for number in range(found, len(migrations)):
                for statement in _statements(migrations[number]):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number + 1}")


def _statements(script: str) -> Iterator[str]:
    """One by one: `executescript` would commit what is under way. A trigger holds semicolons of
    its own."""
    statement = ""
    for piece in script.split(";"):
        statement += f"{piece};"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some errors have ended the transaction already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def _typed_errors(on_disk_error: Callable[[], StoreError]) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        # SQLite names tables and columns, never values: nothing here is a client's.
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        logging.getLogger(__name__).error("the catalogue failed: %s: %s", name, error)
        # The low byte is the class of the error, the rest says where it happened.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        raise _typed(code, on_disk_error) from error


def _typed(code: int, on_disk_error: Callable[[], StoreError]) -> StoreError:
    if code == sqlite3.SQLITE_FULL:
        return StorageFull()
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return StoreBusy()
    if code in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY}:
        # After a failed sync nobody knows what the disk holds: a writer has to stop.
        return on_disk_error()
    return StorageFailed("catalogue")
