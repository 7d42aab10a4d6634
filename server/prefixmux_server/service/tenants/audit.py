"""The audit file: a JSON line for each finished request, each change that a client asked for, and
each request that was forbidden.

Names, digests, figures and codes; never a text, a token or a key. Written by a thread of its own,
so that a slow disk delays no request, and rotated by size. `append` is for other processes.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from io import TextIOWrapper
from logging.handlers import QueueListener, RotatingFileHandler
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

import structlog

from prefixmux_server.errors import UsageError
from prefixmux_server.service.generation.outcome import Outcome
from prefixmux_server.service.tenants.changes import Change
from prefixmux_server.service.tenants.tenant import Tenant

# So many wait only when the disk stands still; memory must not pay for that.
MAX_WAITING = 100_000
PRIVATE = 0o600


class AuditLog:
    """Of one event loop, which hands lines over and never waits. Written while it is entered;
    leaving it writes what is left. `path` None: nothing is kept."""

    def __init__(
        self,
        path: Path | None,
        max_bytes: int,
        backups: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """The file and `backups` older ones have at most about `max_bytes` each."""
        self._path = path
        self._max_bytes = max_bytes
        self._backups = backups
        self._clock = clock
        self._lines: SimpleQueue[logging.LogRecord] = SimpleQueue()
        self._losing = False
        self._stop: Callable[[], None] = lambda: None
        self._log = structlog.get_logger("prefixmux.audit")

    def finished(self, outcome: Outcome) -> None:
        self._write("request", asdict(outcome))

    def changed(self, change: Change) -> None:
        fields = asdict(change)
        self._write(fields.pop("action"), fields)

    def denied(self, request_id: str, tenant: Tenant, method: str, route: str | None) -> None:
        """What a key has no scope for, or a page of another site tried with it."""
        self._write(
            "denied",
            {
                "request_id": request_id,
                "tenant": tenant.name,
                "key_id": tenant.key_id,
                "method": method,
                "route": route,
            },
        )

    def __enter__(self) -> Self:
        """Raises `UsageError` for a file that cannot be written."""
        if self._path is not None:
            file = _open(self._path, self._max_bytes, self._backups)
            listener = QueueListener(self._lines, file)
            listener.start()

            def stop() -> None:
                listener.stop()
                file.close()

            self._stop = stop
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _write(self, event: str, fields: Mapping[str, Any]) -> None:
        if self._path is None:
            return
        if self._lines.qsize() < MAX_WAITING:
            self._losing = False
            line = line_of(event, self._clock(), fields)
            self._lines.put(logging.makeLogRecord({"msg": line}))
        elif not self._losing:
            self._losing = True
            self._log.error("audit lines are lost until the disk takes them again")


class _File(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        structlog.get_logger("prefixmux.audit").error("audit line lost", exc_info=False)

    def _open(self) -> TextIOWrapper:
        def private(path: str, flags: int) -> int:
            return os.open(path, flags, PRIVATE)

        return open(self.baseFilename, "a", encoding="utf-8", opener=private)


def _open(path: Path, max_bytes: int, backups: int) -> _File:
    try:
        return _File(path, maxBytes=max_bytes, backupCount=backups, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"--audit-file: {path} cannot be written; choose another, or none."
        ) from error


def append(path: Path, event: str, fields: Mapping[str, Any]) -> None:
    """One line from another process than the server, which may be rotating: what is open for
    appending goes into the file that it was. Raises `OSError`."""
    line = line_of(event, time.time(), fields) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def line_of(event: str, at: float, fields: Mapping[str, Any]) -> str:
    """`at` is in seconds since 1970."""
    return json.dumps({"event": event, "at": round(at, 6), **fields})
