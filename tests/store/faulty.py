"""A disk that fails at a chosen call."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from prefixmux_store.files import FileStat, OsFiles

Fault = Literal["EIO", "ENOSPC", "EDQUOT", "EMFILE", "EACCES", "short write", "sync EIO"]


class FaultyFiles(OsFiles):
    """Fails at call number `at` (from 1), and at every later one if `forever`.

    A "short write" writes one byte and reports it, which is no error at all. "sync EIO" counts
    syncs alone. `calls` counts what the fault applies to; `syncs_after` those after it struck.
    """

    def __init__(self, fault: Fault, at: int, *, forever: bool = False) -> None:
        self.fault = fault
        self.at = at
        self.forever = forever
        self.calls = 0
        self.syncs_after = 0

    @property
    def struck(self) -> bool:
        return self.calls >= self.at

    def _now(self) -> bool:
        self.calls += 1
        return self.calls == self.at or (self.forever and self.calls > self.at)

    def _maybe(self) -> None:
        if self.fault in {"short write", "sync EIO"} or not self._now():
            return
        number = getattr(errno, self.fault)
        raise OSError(number, os.strerror(number))

    def _sync(self) -> None:
        self.syncs_after += self.struck
        if self.fault == "sync EIO" and self._now():
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def create(self, path: Path) -> int:
        self._maybe()
        return super().create(path)

    def write(self, descriptor: int, data: memoryview) -> int:
        self._maybe()
        short = self.fault == "short write" and self._now()
        return super().write(descriptor, data[:1] if short else data)

    def sync(self, descriptor: int) -> None:
        self._maybe()
        self._sync()
        super().sync(descriptor)

    def close(self, descriptor: int) -> None:
        super().close(descriptor)
        self._maybe()

    def rename(self, source: Path, target: Path) -> None:
        self._maybe()
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._maybe()
        super().unlink(path)

    def make_folder(self, path: Path) -> bool:
        self._maybe()
        return super().make_folder(path)

    def sync_folder(self, path: Path) -> None:
        self._maybe()
        self._sync()
        super().sync_folder(path)

    def names(self, path: Path) -> list[str]:
        self._maybe()
        return super().names(path)

    def stat(self, path: Path) -> FileStat:
        self._maybe()
        return super().stat(path)

    def read(self, path: Path) -> bytes:
        self._maybe()
        return super().read(path)

    def read_start(self, path: Path, size: int) -> bytes:
        self._maybe()
        return super().read_start(path, size)

    @contextlib.contextmanager
    def lock(self, path: Path, *, exclusive: bool, wait: bool) -> Iterator[bool]:
        self._maybe()
        with super().lock(path, exclusive=exclusive, wait=wait) as got:
            yield got
