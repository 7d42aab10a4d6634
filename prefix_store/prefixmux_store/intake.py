"""What has to hold for a version to be made: of its file and its words before anything is written,
and of the files behind it again, inside the transaction that makes it visible.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from prefixmux_store import format
from prefixmux_store.blobs import BlobStore
from prefixmux_store.catalogue import Catalogue, Draft
from prefixmux_store.checks import check_defaults, check_description
from prefixmux_store.content import Content
from prefixmux_store.errors import BlobMissing, DigestMismatch
from prefixmux_store.format import PrefixFile
from prefixmux_store.names import check_task_id, check_tenant
from prefixmux_store.types import Defaults, Version
from prefixmux_store.validate import ModelShape, check_model


def checked_file(
    data: bytes,
    shape: ModelShape | None,
    digest: str | None,
    check: Callable[[PrefixFile], None] | None,
) -> PrefixFile:
    """Raises what the first check that fails does; see `PrefixStore.stage`."""
    file = format.parse(data)
    if digest is not None and digest != file.digest:
        raise DigestMismatch
    if shape is not None:
        check_model(file, shape)
    if check is not None:
        check(file)
    return file


def checked_draft(
    tenant: str,
    task_id: str,
    content: Content,
    description: str | None,
    defaults: Defaults | None,
) -> Draft:
    """Raises `InvalidTenant`, `InvalidTaskId`, `InvalidRequest`."""
    return Draft(
        check_tenant(tenant),
        check_task_id(task_id),
        content,
        check_description(description),
        check_defaults(defaults or Defaults()),
    )


def ensure_file(blobs: BlobStore, tenant: str, staged: PrefixFile) -> None:
    """Writes a staged file again if it has gone, or is on its way out."""
    # A collection came between, whose grace was shorter than this upload took, or a
    # discard of the same content? Another cannot before the version is visible.
    with contextlib.suppress(BlobMissing):
        if blobs.lasting_size(tenant, staged.digest) == staged.nbytes:
            return
    blobs.write(tenant, staged.data)


def ensure_parts(
    catalogue: Catalogue, blobs: BlobStore, draft: Draft, found: Sequence[Version]
) -> None:
    """Raises what is missing: a part that was deleted since it was looked up may have lost its
    file."""
    for version in found:
        catalogue.version(draft.tenant, version.task_id, version.version)
    for digest in draft.content.digests:
        blobs.size(draft.tenant, digest)
