"""Who may change a store: nobody after a failed sync, and one collection or backup at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from prefixmux_store import faults
from prefixmux_store.errors import StorageFailed, StoreReadOnly
from prefixmux_store.files import Files


class Guard:
    """Of one opened store; remembers a failed sync until the store is opened again."""

    def __init__(self, root: Path, files: Files) -> None:
        self._lock = root / "upkeep.lock"
        self._files = files
        self._failed = False

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Around every change. Raises `StoreReadOnly` once one inside has."""
        if self._failed:
            raise StoreReadOnly
        try:
            yield
        except StoreReadOnly:
            self._failed = True
            raise

    @contextlib.contextmanager
    def upkeep(self) -> Iterator[None]:
        """One at a time among all processes; waits. Raises `StorageFailed`."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._files.lock(self._lock, exclusive=True, wait=True))
            except OSError as error:
                faults.log(error)
                raise StorageFailed from error
            yield
