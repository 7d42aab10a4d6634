"""The prefix service: uploads proven on the model before they are stored, and their life cycle.

The store owns tasks, versions and bytes; the engine owns where a prefix is resident. Blocking
work runs in worker threads.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial

from prefixmux_server.engine.front import EngineFront
from prefixmux_server.engine.messages import EngineError, ModelInfo
from prefixmux_server.engine.shape import model_shape
from prefixmux_server.errors import EngineUnavailable, InvalidRequest, Relayed
from prefixmux_server.service.tenant import Tenant
from prefixmux_server.service.upload import NativeFile, PeftFiles, Upload
from prefixmux_server.service.views import (
    TaskPage,
    TaskView,
    VersionPage,
    VersionView,
    task_view,
    version_view,
)
from prefixmux_store.convert.peft import from_peft
from prefixmux_store.errors import (
    InvalidPrefix,
    PreconditionFailed,
    StoreError,
    TaskNotFound,
)
from prefixmux_store.format import PrefixFile
from prefixmux_store.store import PrefixStore
from prefixmux_store.types import Task, Version
from prefixmux_store.validate import ModelShape


class PrefixService:
    """Everything a tenant does with its tasks. `max_prefix_tokens` bounds an upload."""

    def __init__(self, engine: EngineFront, store: PrefixStore, max_prefix_tokens: int) -> None:
        self._engine = engine
        self._store = store
        self._max_prefix_tokens = max_prefix_tokens

    async def upload(self, tenant: Tenant, upload: Upload) -> tuple[VersionView, bool]:
        """The version that holds the file, and whether it is new. Durable when this returns.

        Raises the store's errors in the contract's order: the file's own, its digest, the model;
        then `InvalidPrefix` non_finite when the trial forward overflows. Before all of them
        `PreconditionFailed` if `create_only` finds the task live.
        """
        tenant.require("write")
        model = self._model()
        staged = await asyncio.to_thread(self._stage, tenant.name, upload, model)
        try:
            self._check_trial(await self._engine.probe(tenant.name, staged.digest))
            version, created = await asyncio.to_thread(self._commit, tenant.name, upload, staged)
        except BaseException:
            await asyncio.to_thread(self._discard, tenant.name, staged.digest)
            raise
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
        tenant.require("write")
        return self._task(
            await asyncio.to_thread(self._store.activate, tenant.name, task_id, version)
        )

    async def delete_task(self, tenant: Tenant, task_id: str) -> None:
        tenant.require("write")
        await asyncio.to_thread(self._store.delete_task, tenant.name, task_id)

    async def delete_version(self, tenant: Tenant, task_id: str, version: int) -> None:
        tenant.require("write")
        await asyncio.to_thread(self._store.delete_version, tenant.name, task_id, version)

    def _stage(self, tenant: str, upload: Upload, model: ModelInfo) -> PrefixFile:
        """The checks that need no forward; kept durably then, but visible to nobody."""
        self._check_new(tenant, upload)
        shape = model_shape(model, self._max_prefix_tokens)
        data, digest = _native(upload.content, shape)
        if upload.task_index is not None:
            raise InvalidRequest(
                "The file holds one task; leave task_index out.", param="task_index"
            )
        return self._store.stage(
            tenant, data, shape=shape, digest=digest, check=partial(_check_positions, model)
        )

    def _commit(self, tenant: str, upload: Upload, staged: PrefixFile) -> tuple[Version, bool]:
        return self._store.commit(
            tenant,
            upload.task_id,
            staged,
            activate=upload.activate,
            description=upload.description,
            create_only=upload.create_only,
        )

    def _discard(self, tenant: str, digest: str) -> None:
        """A file that cannot be removed now is left to the next collection."""
        with suppress(StoreError):
            self._store.discard(tenant, digest)

    def _check_new(self, tenant: str, upload: Upload) -> None:
        """Early, so that nothing is written in vain; `commit` decides."""
        if not upload.create_only:
            return
        with suppress(TaskNotFound):
            self._store.get_task(tenant, upload.task_id)
            raise PreconditionFailed

    def _check_trial(self, error: EngineError | None) -> None:
        if error is None:
            return
        if error.code == "non_finite_output":
            raise InvalidPrefix(
                "non_finite", "A trial forward with this prefix gave values that are not finite."
            )
        raise Relayed(error.code, error.message)

    def _model(self) -> ModelInfo:
        if (ready := self._engine.ready) is None or not self._engine.health.ok:
            raise EngineUnavailable("The engine is not ready; try again in a few seconds.")
        return ready.model

    def _version(self, version: Version) -> VersionView:
        residency = self._engine.residency(version.tenant, version.digests[0])
        return version_view(version, residency)

    def _task(self, task: Task) -> TaskView:
        return task_view(task, None if task.active is None else self._version(task.active))


def _native(content: NativeFile | PeftFiles, shape: ModelShape) -> tuple[bytes, str | None]:
    """The native file, and the digest it has to have."""
    if isinstance(content, NativeFile):
        return content.data, content.digest
    return from_peft(content.adapter_config, content.adapter_model, shape), None


def _check_positions(model: ModelInfo, file: PrefixFile) -> None:
    """A prefix that leaves no position for one token could never be served."""
    if model.context is not None and file.offset("decoder") >= model.context:
        raise InvalidPrefix(
            "too_long",
            f"The prefix takes all of the model's {model.context} positions; use fewer tokens.",
        )
