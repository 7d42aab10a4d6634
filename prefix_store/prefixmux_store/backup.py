"""A copy of a store, as of one moment, while the store is in use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from prefixmux_store import upkeep
from prefixmux_store.blobs import BlobStore
from prefixmux_store.catalogue import Catalogue
from prefixmux_store.errors import StorageFull, StoreUnusable, Unavailable
from prefixmux_store.files import Files
from prefixmux_store.opening import CATALOGUE_NAME, make_folders, reason
from prefixmux_store.sqlite_catalogue import SqliteCatalogue
from prefixmux_store.types import VerifyReport


def backup(catalogue: Catalogue, blobs: BlobStore, path: Path, files: Files) -> VerifyReport:
    """Nothing may be collected meanwhile. Raises `StoreUnusable` if `path` holds a store or
    cannot be written, `StorageFailed` if the store itself cannot be read."""
    target, partial = path / CATALOGUE_NAME, path / f"{CATALOGUE_NAME}.partial"
    copies = BlobStore(path, files)

    def copy(tenant: str, digest: str) -> None:
        data = blobs.read(tenant, digest)
        with _writing(path):
            copies.write(tenant, data)

    with _writing(path):
        make_folders(files, path)
        if {target.name, partial.name} & set(files.names(path)):
            raise StoreUnusable(f"There is a store in {path} already, or part of one.")
    catalogue.backup(partial)
    with contextlib.closing(SqliteCatalogue(partial)) as copied:
        report = upkeep.each(copied.references(), copy)
    with _writing(path):
        # Last, so that a copy cut short is no store with missing files.
        files.rename(partial, target)
        files.sync_folder(path)
    return report


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """The copy's own troubles are the operator's, not the store's."""
    try:
        yield
    except (OSError, StorageFull, Unavailable) as error:
        raise StoreUnusable(f"The backup {path} cannot be written: {reason(error)}") from error
