"""`--preload`: the active versions of named tasks, kept loaded from the start."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from prefixmux_server.engine.front import EngineFront
from prefixmux_server.engine.messages import StepOutput
from prefixmux_server.errors import UsageError
from prefixmux_server.service.tenants.tenant import anonymous
from prefixmux_store.errors import StoreError
from prefixmux_store.store import PrefixStore
from prefixmux_store.types import Version


def named(store: PrefixStore, names: str) -> tuple[Version, ...]:
    """`task` or `tenant/task`, with commas between them; without a tenant it is the one of a
    server without keys. Raises `UsageError` for a task that has no active version."""
    return tuple(_resolve(store, name.strip()) for name in names.split(",") if name.strip())


def _resolve(store: PrefixStore, name: str) -> Version:
    tenant, _, task_id = name.rpartition("/")
    try:
        return store.resolve(tenant or anonymous().name, task_id, None)
    except StoreError as error:
        raise UsageError(
            f"--preload: there is no active version of {name}; write task or tenant/task, and"
            " upload it first."
        ) from error


class Loading:
    """Waits until the engine holds some versions in memory."""

    def __init__(self, engine: EngineFront, versions: Sequence[Version]) -> None:
        self._missing = {
            (version.tenant, digest)
            for version in versions
            for digest in version.digests
            if engine.residency(version.tenant, digest) == "disk"
        }
        self._done = asyncio.Event()
        self._check()
        engine.observe(self._observe)

    async def finish(self, limit_s: float) -> None:
        """Returns when all are there, or after `limit_s`, with a word in the log."""
        try:
            async with asyncio.timeout(limit_s):
                await self._done.wait()
        except TimeoutError:
            missing = sorted(self._missing)
            structlog.get_logger("prefixmux.preload").warning("not preloaded", prefixes=missing)

    def _observe(self, output: StepOutput) -> None:
        for change in output.residency:
            if change.state != "disk":
                self._missing.discard((change.tenant, change.digest))
        self._check()

    def _check(self) -> None:
        if not self._missing:
            self._done.set()
