"""The prefix store: tasks, their immutable versions, and the files behind them.

Owns the order that makes an upload durable: the blob first, with every sync, then one transaction
of the catalogue, then the answer. What the catalogue does not name does not exist. Knows nothing
of requests or memory; keys, limits and usage are in the same catalogue, with owners of their own.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Self

from prefixmux_store import intake, reading, upkeep
from prefixmux_store.backup import backup
from prefixmux_store.blobs import BlobStore
from prefixmux_store.catalogue import Catalogue, Commit
from prefixmux_store.checks import check_exists
from prefixmux_store.content import composed, of_file
from prefixmux_store.files import Files, OsFiles
from prefixmux_store.format import PrefixFile
from prefixmux_store.guard import Guard
from prefixmux_store.keys import KeyRing
from prefixmux_store.names import check_tenant
from prefixmux_store.opening import enter
from prefixmux_store.tenants import Footprint, Tenants
from prefixmux_store.types import Defaults, GcReport, Page, Task, VerifyReport, Version
from prefixmux_store.usage import UsageLedger
from prefixmux_store.validate import ModelShape


class PrefixStore:
    """One folder. Any thread, and any number of processes on one machine, may use it at once.

    After a failed sync every change is refused with `StoreReadOnly`, reading goes on; opening the
    store again starts from what the disk really holds.
    """

    def __init__(
        self,
        root: Path,
        files: Files,
        catalogue: Catalogue,
        held: contextlib.ExitStack,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`open` is the way in; `held` is closed with the store."""
        self._files = files
        self._catalogue = catalogue
        self._held = held
        self._clock = clock
        self._blobs = BlobStore(root, files)
        self._guard = Guard(root, files)
        connections = catalogue.connections
        self.keys = KeyRing(connections, self._guard, clock)
        self.tenants = Tenants(connections, self._guard)
        self.usage = UsageLedger(connections, self._guard)

    @classmethod
    def open(
        cls, root: Path, files: Files | None = None, clock: Callable[[], float] = time.time
    ) -> PrefixStore:
        """Makes the folder if it is not there, and removes what dead uploads left.

        Raises `StoreUnusable` (no folder, not writable, no catalogue) or `SchemaTooNew`.
        """
        disk = files or OsFiles()
        with contextlib.ExitStack() as stack:
            catalogue = enter(root, disk, stack)
            return cls(root, disk, catalogue, stack.pop_all(), clock)

    def stage(
        self,
        tenant: str,
        data: bytes,
        *,
        shape: ModelShape | None = None,
        digest: str | None = None,
        check: Callable[[PrefixFile], None] | None = None,
    ) -> PrefixFile:
        """Checks a file and keeps it durably, visible to nobody until `commit`.

        Nothing is written unless every check passes: the format's own rules, then `digest`
        (`DigestMismatch`), then `shape` (as `check_model`), then the caller's `check`, which
        raises what it refuses with; each if given. Raises `TenantFull` where the tenant's limit
        leaves no room.
        """
        check_tenant(tenant)
        file = intake.checked_file(data, shape, digest, check)
        # Early, so that nothing is written in vain; `commit` decides.
        self._catalogue.check_room(tenant, file.digest, file.nbytes)
        with self._guard.writing():
            self._blobs.write(tenant, data)
        return file

    def discard(self, tenant: str, digest: str) -> None:
        """Takes a staged file back at once, unless a version of the tenant names it.

        A `commit` of the same content, before or after or meanwhile, keeps its file. Anything
        else that uses the file without a version, such as a request that outlives its version
        or a trial of the same upload, finds it missing. Waits for a backup to end.
        """
        check_tenant(tenant)
        with self._guard.writing(), self._guard.upkeep():
            upkeep.discard(self._catalogue, self._blobs, tenant, digest)

    def commit(
        self,
        tenant: str,
        task_id: str,
        staged: PrefixFile,
        *,
        activate: bool = True,
        description: str | None = None,
        create_only: bool = False,
        defaults: Defaults | None = None,
    ) -> tuple[Version, bool]:
        """The version, and whether it was created now; durable when this returns.

        A file that was uploaded to the live task before, with the same defaults, gives its version
        again (and activates it, if asked). Raises `InvalidTaskId`, `InvalidRequest` for a
        description or defaults that cannot be kept, `PreconditionFailed` if `create_only` finds the
        task live, `QuotaExceeded` and `TenantFull` where the tenant's limits end.
        """
        draft = intake.checked_draft(tenant, task_id, of_file(staged), description, defaults)
        ensure = partial(intake.ensure_file, self._blobs, tenant, staged)
        commit = Commit(activate, create_only, self._clock(), ensure)
        with self._guard.writing():
            return self._catalogue.add(draft, commit)

    def compose(
        self,
        tenant: str,
        task_id: str,
        parts: Sequence[tuple[str, int | None]],
        *,
        activate: bool = True,
        description: str | None = None,
        create_only: bool = False,
        defaults: Defaults | None = None,
    ) -> tuple[Version, bool]:
        """A version made of stored ones, (task_id, version) in order; None: the active one, now.

        As `commit`; equal content of other parts is another version. Needs its parts' files, not
        their tasks: those may be deleted. Raises as `resolve_parts` does, too.
        """
        found = self.resolve_parts(tenant, parts)
        draft = intake.checked_draft(tenant, task_id, composed(found), description, defaults)
        ensure = partial(intake.ensure_parts, self._catalogue, self._blobs, draft, found)
        commit = Commit(activate, create_only, self._clock(), ensure)
        with self._guard.writing():
            return self._catalogue.add(draft, commit)

    def resolve_parts(
        self, tenant: str, parts: Sequence[tuple[str, int | None]]
    ) -> tuple[Version, ...]:
        """As `resolve`, for each; the `param` of an error says which one it is about. Raises
        `InvalidRequest` for none and for too many."""
        return reading.parts(self._catalogue, tenant, parts)

    def resolve(self, tenant: str, task_id: str, version: int | None) -> Version:
        """None: the active version. Raises `TaskNotFound`, `VersionNotFound`."""
        return reading.version(self._catalogue, tenant, task_id, version)

    def get_version(self, tenant: str, task_id: str, version: int) -> Version:
        return self.resolve(tenant, task_id, version)

    def get_task(self, tenant: str, task_id: str) -> Task:
        check_exists(tenant, task_id)
        return self._catalogue.task(tenant, task_id)

    def list_tasks(
        self, tenant: str, limit: int = 100, cursor: str | None = None, query: str | None = None
    ) -> Page[Task]:
        """By task_id; `query` is a substring of it."""
        return reading.tasks(self._catalogue, tenant, limit, cursor, query or "")

    def list_versions(
        self, tenant: str, task_id: str, limit: int = 100, cursor: str | None = None
    ) -> Page[Version]:
        """By number, the oldest first."""
        return reading.versions(self._catalogue, tenant, task_id, limit, cursor)

    def footprint(self, tenant: str) -> Footprint:
        return self.tenants.footprint(tenant)

    def read_file(self, tenant: str, task_id: str, version: int | None) -> bytes:
        """The file as it was uploaded, hashed again. Raises `BlobMissing`, `BlobCorrupt` too, and
        `InvalidRequest` for a composed version, which has no file of its own."""
        return reading.file(self._blobs, self.resolve(tenant, task_id, version))

    def activate(self, tenant: str, task_id: str, version: int) -> Task:
        check_exists(tenant, task_id)
        with self._guard.writing():
            return self._catalogue.activate(tenant, task_id, version, self._clock())

    def delete_task(self, tenant: str, task_id: str) -> None:
        """All versions at once. Files stay until `gc`, for requests that still run."""
        check_exists(tenant, task_id)
        with self._guard.writing():
            self._catalogue.delete_task(tenant, task_id)

    def delete_version(self, tenant: str, task_id: str, version: int) -> None:
        """Raises `VersionActive` for the active one."""
        check_exists(tenant, task_id)
        with self._guard.writing():
            self._catalogue.delete_version(tenant, task_id, version, self._clock())

    def verify(self) -> VerifyReport:
        """Reads and hashes every file that a live version needs."""
        return upkeep.verify(self._catalogue.references(), self._blobs)

    def gc(self, grace_s: float) -> GcReport:
        """Removes files that no version needs. `grace_s` has to exceed the longest request and
        the longest upload, both of which may use a file that no version names."""
        with self._guard.writing(), self._guard.upkeep():
            return upkeep.collect(self._catalogue, self._blobs, self._clock(), grace_s)

    def backup(self, path: Path) -> VerifyReport:
        """Copies the store, as of now, into a folder without one; the copy can be opened.

        The report names files that are missing or damaged here and so are not in the copy.
        """
        with self._guard.upkeep():
            return backup(self._catalogue, self._blobs, path, self._files)

    def close(self) -> None:
        self._catalogue.close()
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
