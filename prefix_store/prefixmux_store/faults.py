"""From what a disk says to what the store says. The cause goes to the log, with no path in it.

Knows no file: which meaning an error has is told by what was being done.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator

from prefixmux_store.errors import BlobMissing, StorageFailed, StorageFull, StoreReadOnly

_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_PLAIN_FILE = {errno.ELOOP, errno.ENXIO, errno.ENOTDIR}


@contextlib.contextmanager
def changing() -> Iterator[None]:
    """Around a change of files, syncs apart. Raises `StorageFull`, `StorageFailed`."""
    try:
        yield
    except OSError as error:
        log(error)
        raise (StorageFull() if error.errno in _FULL else StorageFailed()) from error


@contextlib.contextmanager
def syncing() -> Iterator[None]:
    """Around a sync. Raises `StoreReadOnly`."""
    try:
        yield
    except OSError as error:
        log(error)
        raise StoreReadOnly from error


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Around a look at a file that should be there. Raises `BlobMissing`, `StorageFailed`."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError):
        raise BlobMissing from None
    except OSError as error:
        if error.errno in _NO_PLAIN_FILE:
            raise BlobMissing from error
        log(error)
        raise StorageFailed from error


def log(error: OSError) -> None:
    """What the system said, and not where."""
    # Not str(error): that names the file, and a file's folder is named like a tenant.
    name = errno.errorcode.get(error.errno or 0, type(error).__name__)
    said = os.strerror(error.errno) if error.errno else "no reason given"
    logging.getLogger(__name__).error("the disk failed: %s: %s", name, said)
