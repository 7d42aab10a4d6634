"""Every file operation of the store but SQLite's own, so that tests can record or break each.

Paths are made by the store, never by a client. Errors are plain `OSError`; their meaning is the
caller's business.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol


@dataclass(frozen=True)
class FileStat:
    """`size` in bytes, `modified` in seconds since 1970."""

    size: int
    modified: float


class Files(Protocol):
    """What a store needs of a disk. Nothing follows a symbolic link at the end of a path."""

    def create(self, path: Path) -> int:
        """A descriptor for a new file; `FileExistsError` if the name is taken."""
        ...

    def write(self, descriptor: int, data: memoryview) -> int:
        """May write less than asked."""
        ...

    def sync(self, descriptor: int) -> None: ...

    def close(self, descriptor: int) -> None: ...

    def rename(self, source: Path, target: Path) -> None:
        """Replaces the target at once."""
        ...

    def unlink(self, path: Path) -> None: ...

    def make_folder(self, path: Path) -> bool:
        """Whether it was made now; False if it was there."""
        ...

    def sync_folder(self, path: Path) -> None: ...

    def names(self, path: Path) -> list[str]: ...

    def stat(self, path: Path) -> FileStat: ...

    def read(self, path: Path) -> bytes: ...

    def read_start(self, path: Path, size: int) -> bytes:
        """The first `size` bytes, at least 2, and no more from the disk; fewer if the file ends."""
        ...

    def lock(self, path: Path, *, exclusive: bool, wait: bool) -> AbstractContextManager[bool]:
        """Holds a lock among all processes while entered; yields False if another holds it."""
        ...


class OsFiles:
    """The disk itself. Files are private to the user the server runs as."""

    def create(self, path: Path) -> int:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(path, flags, 0o600)

    def write(self, descriptor: int, data: memoryview) -> int:
        return os.write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        source.replace(target)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def make_folder(self, path: Path) -> bool:
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            if not path.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(path)) from None
            return False
        return True

    def sync_folder(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def names(self, path: Path) -> list[str]:
        return sorted(os.listdir(path))  # noqa: PTH208, no object a file: there may be many

    def stat(self, path: Path) -> FileStat:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError(errno.ENOENT, "not a plain file", str(path))
        return FileStat(found.st_size, found.st_mtime)

    def read(self, path: Path) -> bytes:
        with _reading(path) as file:
            return file.read()

    def read_start(self, path: Path, size: int) -> bytes:
        # A buffer of this size is filled once, and again only if the system gave less.
        with _reading(path, buffering=size) as file:
            return file.read(size)

    @contextlib.contextmanager
    def lock(self, path: Path, *, exclusive: bool, wait: bool) -> Iterator[bool]:
        flags = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
            try:
                fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _reading(path: Path, buffering: int = -1) -> Iterator[BinaryIO]:
    # O_NONBLOCK: a pipe planted under a blob's name must not hang the reader.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags), "rb", buffering=buffering) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise FileNotFoundError(errno.ENOENT, "not a plain file", str(path))
        yield file
