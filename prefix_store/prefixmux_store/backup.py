"""A copy of a store, as of one moment, while the store is in use."""

from __future__ import annotations

import contextlib
from pathlib import Path

from prefixmux_store import upkeep
from prefixmux_store.blobs import BlobStore
from prefixmux_store.catalogue import Catalogue
from prefixmux_store.errors import StoreUnusable
from prefixmux_store.files import Files
from prefixmux_store.opening import CATALOGUE_NAME, make_folders
from prefixmux_store.sqlite_catalogue import SqliteCatalogue
from prefixmux_store.types import VerifyReport


def backup(catalogue: Catalogue, blobs: BlobStore, path: Path, files: Files) -> VerifyReport:
    """Nothing may be collected meanwhile. Raises `StoreUnusable` if `path` holds a store or
    cannot be written."""
    target, partial = path / CATALOGUE_NAME, path / f"{CATALOGUE_NAME}.partial"
    try:
        make_folders(files, path)
        if {target.name, partial.name} & set(files.names(path)):
            raise StoreUnusable(f"There is a store in {path} already.")
        catalogue.backup(partial)
        with contextlib.closing(SqliteCatalogue(partial)) as copied:
            references = copied.references()
        report = upkeep.copy(references, blobs, BlobStore(path, files))
        # Last, so that a copy cut short is no store with missing files.
        files.rename(partial, target)
        files.sync_folder(path)
    except OSError as error:
        raise StoreUnusable(f"The backup {path} cannot be written: {error.strerror}") from error
    return report
