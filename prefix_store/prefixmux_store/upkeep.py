"""Work on the whole store: verification, garbage collection, backup.

Sees a catalogue and blobs side by side; changes no version.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable

from prefixmux_store.blobs import BlobStore
from prefixmux_store.catalogue import Catalogue
from prefixmux_store.errors import BlobCorrupt, BlobMissing
from prefixmux_store.types import GcReport, VerifyReport

# The catalogue's writers wait for one batch at most.
_BATCH = 256
# Longer than any write of one file takes.
_TEMPORARY_SECONDS = 3600.0


def verify(references: Iterable[tuple[str, str]], blobs: BlobStore) -> VerifyReport:
    """Reads and hashes every blob that a live version needs."""
    return each(references, blobs.read)


def collect(catalogue: Catalogue, blobs: BlobStore, now: float, grace_s: float) -> GcReport:
    """Removes blobs that no live version needs and that were written before `now` - `grace_s`.

    A version can be added only outside a sweep, and adding looks whether its blob is there: so a
    blob that went between its upload and its version is noticed, never missed later.
    """
    sizes: list[int] = []
    temporary = 0
    for tenant in blobs.tenants():
        temporary += blobs.remove_temporary(tenant, now - max(grace_s, _TEMPORARY_SECONDS))
        listed = blobs.listing(tenant)
        # Out of date at once: it only spares most of the files a second look.
        used = catalogue.used(tenant)
        doubtful = [digest for digest in listed if digest not in used]
        for at in range(0, len(doubtful), _BATCH):
            batch = doubtful[at : at + _BATCH]
            with catalogue.sweeping(tenant, batch) as used:
                unused = [digest for digest in batch if digest not in used]
                sizes += [blobs.remove(tenant, digest, now - grace_s) for digest in unused]
    removed = [size for size in sizes if size]
    return GcReport(blobs=len(removed), bytes=sum(removed), temporary=temporary)


def discard(catalogue: Catalogue, blobs: BlobStore, tenant: str, digest: str) -> None:
    """Removes one blob, however new, unless a live version needs it; safe as `collect` is."""
    with contextlib.suppress(BlobMissing), catalogue.sweeping(tenant, [digest]) as used:
        if digest not in used:
            blobs.remove(tenant, digest, math.inf)


def measure(catalogue: Catalogue, blobs: BlobStore) -> None:
    """Learns the sizes that no version tells; a file that is missing has none yet."""
    for tenant, digest in catalogue.unsized():
        with contextlib.suppress(BlobMissing):
            catalogue.set_size(tenant, digest, blobs.size(tenant, digest))


def recover(blobs: BlobStore) -> int:
    """Removes every temporary file; only for who knows that nobody else writes."""
    return sum(blobs.remove_temporary(tenant, math.inf) for tenant in blobs.tenants())


def each(
    references: Iterable[tuple[str, str]], visit: Callable[[str, str], object]
) -> VerifyReport:
    """Visits every blob named; those that cannot be read are reported, not raised."""
    checked = 0
    missing: list[tuple[str, str]] = []
    corrupt: list[tuple[str, str]] = []
    for tenant, digest in references:
        checked += 1
        try:
            visit(tenant, digest)
        except BlobMissing:
            missing.append((tenant, digest))
        except BlobCorrupt:
            corrupt.append((tenant, digest))
    return VerifyReport(checked, tuple(missing), tuple(corrupt))
