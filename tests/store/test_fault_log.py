"""What the log tells of a disk that failed: the system's word for it, and no path."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefixmux_store.errors import StorageFailed, StorageFull, StoreError, StoreReadOnly
from prefixmux_store.store import PrefixStore
from store.faulty import Fault, FaultyFiles
from store.makers import prefix

SAID: dict[Fault, tuple[type[StoreError], str]] = {
    "EIO": (StorageFailed, "EIO: Input/output error"),
    "ENOSPC": (StorageFull, "ENOSPC: No space left on device"),
    "EMFILE": (StorageFailed, "EMFILE: Too many open files"),
    "sync EIO": (StoreReadOnly, "EIO: Input/output error"),
}


class NamingFiles(FaultyFiles):
    """Names the file in its errors, as the system does."""

    def create(self, path: Path) -> int:
        try:
            return super().create(path)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None


@pytest.mark.parametrize("fault", SAID)
def test_a_failed_write_leaves_its_cause_in_the_log(
    folder: Path, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    kind, text = SAID[fault]
    files = NamingFiles(fault, 10**9)
    with PrefixStore.open(folder / "store", files) as store:
        store.stage("some-tenant", prefix(1))
        files.at, files.calls, files.forever = 1, 0, True
        with pytest.raises(kind) as caught:
            store.stage("some-tenant", prefix(2))
    assert [record.getMessage() for record in caplog.records] == [f"the disk failed: {text}"]
    assert {record.name for record in caplog.records} == {"prefixmux_store.faults"}
    assert "some-tenant" not in caplog.text + caught.value.message


def test_a_failed_read_and_a_failed_lock_leave_theirs(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = FaultyFiles("EACCES", 10**9, forever=True)
    with PrefixStore.open(folder / "store", files) as store:
        store.commit("default", "a", store.stage("default", prefix()))
        files.at, files.calls = 1, 0
        with pytest.raises(StorageFailed):
            store.read_file("default", "a", 1)
        with pytest.raises(StorageFailed):
            store.gc(0)
    assert [record.getMessage() for record in caplog.records] == [
        "the disk failed: EACCES: Permission denied"
    ] * 2


def test_a_file_that_is_not_there_is_no_fault_of_the_disk(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with PrefixStore.open(folder / "store") as store:
        store.discard("default", f"sha256:{'0' * 64}")
    assert caplog.records == []


def test_an_error_without_a_number_is_named_by_its_kind(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(FaultyFiles):
        def write(self, descriptor: int, data: memoryview) -> int:
            raise OSError(f"{folder} is odd")

    store = PrefixStore.open(folder / "store", Odd("EIO", 10**9))
    with store, pytest.raises(StorageFailed):
        store.stage("default", prefix())
    assert "the disk failed: OSError: no reason given" in caplog.text
    assert str(folder) not in caplog.text
