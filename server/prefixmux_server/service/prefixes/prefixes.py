"""The prefix service: everything a tenant does with its tasks.

The store owns tasks, versions and bytes; the engine owns where a prefix is resident. Blocking
work runs in worker threads.
"""

from __future__ import annotations

import asyncio

from prefixmux_server.engine.front import EngineFront
from prefixmux_server.engine.messages import ResidencyState
from prefixmux_server.service.prefixes.pins import Pins
from prefixmux_server.service.prefixes.upload import Upload
from prefixmux_server.service.prefixes.uploader import Uploader
from prefixmux_server.service.prefixes.views import (
    TaskPage,
    TaskView,
    VersionPage,
    VersionView,
    task_view,
    version_view,
)
from prefixmux_server.service.tenants.changes import Action, Changes
from prefixmux_server.service.tenants.tenant import Tenant
from prefixmux_store.store import PrefixStore
from prefixmux_store.types import Task, Version

# Where a version of several prefixes is: where the last of them is that a request waits for.
FARTHEST_FIRST: tuple[ResidencyState, ...] = ("disk", "host", "device")


class PrefixService:
    """Each call names its tenant. `max_prefix_tokens` bounds an upload, `max_rows` the beams that
    a version may store."""

    def __init__(
        self,
        engine: EngineFront,
        store: PrefixStore,
        max_prefix_tokens: int,
        max_rows: int,
        changes: Changes | None = None,
        pins: Pins | None = None,
    ) -> None:
        self._engine = engine
        self._store = store
        self._pins = pins or Pins(engine)
        # What is deleted is let go, also where both are asked for at once.
        self._pinning = asyncio.Lock()
        self._changes = changes or Changes()
        self._uploader = Uploader(engine, store, max_prefix_tokens, max_rows)

    async def upload(self, tenant: Tenant, upload: Upload) -> tuple[VersionView, bool]:
        """The version that holds the content, and whether it is new. Raises as `Uploader` does."""
        with self._changes.asked("upload", tenant, upload.task_id) as asked:
            tenant.require("write")
            version, created = await self._uploader.upload(tenant.name, upload)
            asked.found(version)
        return self._version(version), created

    async def list_tasks(
        self, tenant: Tenant, limit: int, cursor: str | None, query: str | None
    ) -> TaskPage:
        tenant.require("read")
        page = await asyncio.to_thread(self._store.list_tasks, tenant.name, limit, cursor, query)
        return TaskPage([self._task(task) for task in page.items], page.next_cursor)

    async def task(self, tenant: Tenant, task_id: str) -> TaskView:
        tenant.require("read")
        return self._task(await asyncio.to_thread(self._store.get_task, tenant.name, task_id))

    async def versions(
        self, tenant: Tenant, task_id: str, limit: int, cursor: str | None
    ) -> VersionPage:
        tenant.require("read")
        page = await asyncio.to_thread(
            self._store.list_versions, tenant.name, task_id, limit, cursor
        )
        return VersionPage([self._version(version) for version in page.items], page.next_cursor)

    async def version(self, tenant: Tenant, task_id: str, version: int) -> VersionView:
        tenant.require("read")
        found = await asyncio.to_thread(self._store.get_version, tenant.name, task_id, version)
        return self._version(found)

    async def file(self, tenant: Tenant, task_id: str, version: int) -> bytes:
        tenant.require("read")
        return await asyncio.to_thread(self._store.read_file, tenant.name, task_id, version)

    async def activate(self, tenant: Tenant, task_id: str, version: int) -> TaskView:
        with self._changes.asked("activate", tenant, task_id, version) as asked:
            tenant.require("write")
            task = await asyncio.to_thread(self._store.activate, tenant.name, task_id, version)
            if task.active is not None:
                asked.found(task.active)
        return self._task(task)

    async def pin(
        self, tenant: Tenant, task_id: str, version: int | None, *, pinned: bool
    ) -> VersionView:
        """A `version` of None is the one that is active now."""
        action: Action = "pin" if pinned else "unpin"
        with self._changes.asked(action, tenant, task_id, version) as asked:
            tenant.require("write")
            async with self._pinning:
                name = tenant.name, task_id, version
                found = await asyncio.to_thread(self._store.resolve, *name)
                asked.found(found)
                self._pins.set(found, pinned=pinned)
        return self._version(found)

    async def delete_task(self, tenant: Tenant, task_id: str) -> None:
        with self._changes.asked("delete_task", tenant, task_id):
            tenant.require("write")
            async with self._pinning:
                await asyncio.to_thread(self._store.delete_task, tenant.name, task_id)
                self._pins.forget(tenant.name, task_id)

    async def delete_version(self, tenant: Tenant, task_id: str, version: int) -> None:
        with self._changes.asked("delete_version", tenant, task_id, version) as asked:
            tenant.require("write")
            async with self._pinning:
                name = tenant.name, task_id, version
                asked.found(await asyncio.to_thread(self._store.resolve, *name))
                await asyncio.to_thread(self._store.delete_version, *name)
                self._pins.forget(tenant.name, task_id, version)

    def _version(self, version: Version) -> VersionView:
        found = {self._engine.residency(version.tenant, digest) for digest in version.digests}
        residency = min(found, key=FARTHEST_FIRST.index)
        return version_view(version, residency, self._pins.holds(version))

    def _task(self, task: Task) -> TaskView:
        return task_view(task, None if task.active is None else self._version(task.active))
