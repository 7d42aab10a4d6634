"""Looking up tasks and versions by what callers say: names, parts in order, pages, one file."""

from __future__ import annotations

from collections.abc import Sequence

from prefixmux_store import cursors
from prefixmux_store.blobs import BlobStore
from prefixmux_store.catalogue import Catalogue
from prefixmux_store.checks import check_exists
from prefixmux_store.content import check_count
from prefixmux_store.errors import InvalidRequest, TaskNotFound, VersionNotFound
from prefixmux_store.names import is_name
from prefixmux_store.types import Page, Task, Version


def version(catalogue: Catalogue, tenant: str, task_id: str, number: int | None) -> Version:
    """None: the active one. Raises `TaskNotFound`, `VersionNotFound`."""
    check_exists(tenant, task_id)
    return catalogue.version(tenant, task_id, number)


def parts(
    catalogue: Catalogue, tenant: str, named: Sequence[tuple[str, int | None]]
) -> tuple[Version, ...]:
    """As `version`, for each; the `param` of an error says which one it is about. Raises
    `InvalidRequest` for none and for too many."""
    check_count(len(named))
    found = []
    for place, (task_id, number) in enumerate(named):
        try:
            found.append(version(catalogue, tenant, task_id, number))
        except (TaskNotFound, VersionNotFound) as error:
            error.param = f"compose.{place}.{error.param}"
            raise
    return tuple(found)


def tasks(
    catalogue: Catalogue, tenant: str, limit: int, cursor: str | None, query: str
) -> Page[Task]:
    """Raises `InvalidRequest`, `InvalidCursor`; nobody's tasks are none."""
    cursors.check_limit(limit)
    after = cursors.after_task(cursor)
    if not is_name(tenant) or not query.isascii():
        return Page((), None)
    found = catalogue.tasks(tenant, limit + 1, after, query)
    return cursors.page(found, limit, lambda task: task.task_id)


def versions(
    catalogue: Catalogue, tenant: str, task_id: str, limit: int, cursor: str | None
) -> Page[Version]:
    """Raises `InvalidRequest`, `TaskNotFound`, `InvalidCursor`."""
    cursors.check_limit(limit)
    check_exists(tenant, task_id)
    after = cursors.after_version(cursor)
    found = catalogue.versions(tenant, task_id, limit + 1, after)
    return cursors.page(found, limit, lambda version: str(version.version))


def file(blobs: BlobStore, found: Version) -> bytes:
    """Raises `InvalidRequest` for a version that has no file of its own."""
    if len(found.digests) > 1:
        names = ", ".join(f"{part.task_id} version {part.version}" for part in found.parts)
        raise InvalidRequest(
            f"This version is composed and has no file of its own: fetch its parts, {names}.",
            param="version",
        )
    return blobs.read(found.tenant, found.digests[0])
