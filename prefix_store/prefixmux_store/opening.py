"""Entering a store's folder: making it, locking it, and clearing what dead processes left."""

from __future__ import annotations

import contextlib
from pathlib import Path

from prefixmux_store import upkeep
from prefixmux_store.blobs import BlobStore
from prefixmux_store.catalogue import Catalogue
from prefixmux_store.errors import StorageFull, StoreUnusable, Unavailable
from prefixmux_store.files import Files
from prefixmux_store.sqlite_catalogue import SqliteCatalogue

CATALOGUE_NAME = "catalogue.sqlite3"
_LOCK_NAME = "store.lock"


def enter(root: Path, files: Files, stack: contextlib.ExitStack) -> Catalogue:
    """Holds the store's lock, shared, for as long as `stack` lives.

    Who can have it alone knows that every temporary file is a dead upload's, and makes the
    catalogue while nobody else looks. Raises `StoreUnusable`, `SchemaTooNew`.
    """
    path, lock = root / CATALOGUE_NAME, root / _LOCK_NAME
    try:
        make_folders(files, root)
        with files.lock(lock, exclusive=True, wait=False) as alone:
            if alone:
                blobs = BlobStore(root, files)
                upkeep.recover(blobs)
                with contextlib.closing(SqliteCatalogue(path)) as catalogue:
                    upkeep.measure(catalogue, blobs)
                files.sync_folder(root)
        stack.enter_context(files.lock(lock, exclusive=False, wait=True))
    except (OSError, StorageFull, Unavailable) as error:
        raise StoreUnusable(f"The store {root} cannot be opened: {reason(error)}") from error
    return SqliteCatalogue(path)


def make_folders(files: Files, path: Path) -> None:
    """The folder and those it lies in, each synced into its parent."""
    try:
        made = files.make_folder(path)
    except FileNotFoundError:
        make_folders(files, path.parent)
        made = files.make_folder(path)
    if made:
        files.sync_folder(path.parent)


def reason(error: Exception) -> str:
    """What the system said, for the operator."""
    cause = error if isinstance(error, OSError) else error.__cause__
    return (cause.strerror if isinstance(cause, OSError) else None) or str(error)
