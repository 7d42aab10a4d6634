"""The disk itself: what the rest of the store takes for granted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from prefixmux_store.files import OsFiles


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Device and inode of everything that the system was asked to make durable."""
    seen: list[tuple[int, int]] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        found = os.fstat(descriptor)
        seen.append((found.st_dev, found.st_ino))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return seen


def identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def test_syncs_reach_the_system(folder: Path, synced: list[tuple[int, int]]) -> None:
    files = OsFiles()
    descriptor = files.create(folder / "file")
    assert files.write(descriptor, memoryview(b"data")) == 4
    assert synced == []
    files.sync(descriptor)
    assert synced == [identity(folder / "file")]
    files.close(descriptor)
    files.sync_folder(folder)
    assert synced[1:] == [identity(folder)]
    assert files.read(folder / "file") == b"data"


def test_what_is_made_is_private(folder: Path) -> None:
    files = OsFiles()
    files.close(files.create(folder / "file"))
    assert files.make_folder(folder / "made")
    assert not files.make_folder(folder / "made")
    assert (folder / "file").stat().st_mode & 0o077 == 0
    assert (folder / "made").stat().st_mode & 0o077 == 0


def test_nothing_is_written_over_or_through_what_is_there(folder: Path) -> None:
    files = OsFiles()
    (folder / "file").write_text("mine")
    (folder / "link").symlink_to(folder / "elsewhere")
    for name in ("file", "link"):
        with pytest.raises(FileExistsError):
            files.create(folder / name)
    with pytest.raises(NotADirectoryError):
        files.make_folder(folder / "file")
    assert not (folder / "elsewhere").exists()
    assert (folder / "file").read_text() == "mine"


def test_only_plain_files_have_a_size(folder: Path) -> None:
    files = OsFiles()
    (folder / "file").write_text("four")
    (folder / "link").symlink_to(folder / "file")
    assert files.stat(folder / "file").size == 4
    for name in ("link", "."):
        with pytest.raises(FileNotFoundError):
            files.stat(folder / name)


def test_the_start_of_a_file_can_be_read_alone(folder: Path) -> None:
    files = OsFiles()
    (folder / "file").write_bytes(b"0123456789")
    for size in (2, 8, 10):
        assert files.read_start(folder / "file", size) == b"0123456789"[:size]
    assert files.read_start(folder / "file", 2**16) == b"0123456789"


def test_locks_are_shared_or_exclusive(folder: Path) -> None:
    files = OsFiles()

    def free(*, exclusive: bool) -> bool:
        with files.lock(folder / "lock", exclusive=exclusive, wait=False) as got:
            return got

    with files.lock(folder / "lock", exclusive=False, wait=True) as got:
        assert got
        assert free(exclusive=False)
        assert not free(exclusive=True)
    with files.lock(folder / "lock", exclusive=True, wait=True) as got:
        assert got
        assert not free(exclusive=False)
    assert free(exclusive=True)
