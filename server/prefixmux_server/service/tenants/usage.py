"""What tenants have used, on its way to the store's ledger.

Collected in memory and written about once a second, in a worker thread: a crash loses that second,
a drain nothing. Knows sums, no single request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from prefixmux_server.service.generation.outcome import Outcome
from prefixmux_server.service.tenants.tenant import Tenant
from prefixmux_store.errors import StoreError
from prefixmux_store.store import PrefixStore
from prefixmux_store.tenants import TenantLimits
from prefixmux_store.usage import UsageEntry

PERIOD_SECONDS = 1.0


@dataclass(frozen=True)
class TaskUsage:
    """`task_id` None: the bare model and compositions of a request's own."""

    task_id: str | None
    requests: int
    prompt_tokens: int
    prefix_tokens: int
    generated_tokens: int


@dataclass(frozen=True)
class TenantUsage:
    """What a tenant keeps, may have and has used; tasks that were deleted stay in `items`."""

    tenant: str
    tasks: int
    versions: int
    bytes: int
    limits: TenantLimits
    items: list[TaskUsage]


class UsageMeter:
    """Of one event loop. Counts requests that had a row, however they ended."""

    def __init__(self, store: PrefixStore) -> None:
        self._store = store
        self._unwritten: dict[tuple[str, str | None], UsageEntry] = {}
        # What is being written is in the ledger or not, and nobody reads until that is known.
        self._writing = asyncio.Lock()
        self._log = structlog.get_logger("prefixmux.usage")

    def finished(self, outcome: Outcome) -> None:
        if outcome.timing is not None:
            self._count(_entry(outcome))

    async def of(self, tenant: Tenant) -> TenantUsage:
        """Up to the last request that ended."""
        tenant.require("read")
        async with self._writing:
            stored = await asyncio.to_thread(self._store.usage.of, tenant.name)
            unwritten = [entry for entry in self._unwritten.values() if entry.tenant == tenant.name]
        footprint = await asyncio.to_thread(self._store.footprint, tenant.name)
        limits = await asyncio.to_thread(self._store.tenants.limits, tenant.name)
        items = list(map(_view, _merged([*stored, *unwritten])))
        return TenantUsage(
            tenant.name, footprint.tasks, footprint.versions, footprint.bytes, limits, items
        )

    async def write(self) -> None:
        """To the ledger; what it does not take now is kept for the next time."""
        async with self._writing:
            entries, self._unwritten = tuple(self._unwritten.values()), {}
            if not entries:
                return
            try:
                await asyncio.to_thread(self._store.usage.add, entries)
            except StoreError as error:
                self._log.error("usage not written", code=error.code)
                for entry in entries:
                    self._count(entry)

    @asynccontextmanager
    async def running(self, period: float = PERIOD_SECONDS) -> AsyncIterator[None]:
        """Writes once a period while the body runs, and once more at its end."""
        task = asyncio.create_task(self._run(period))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.write()

    async def _run(self, period: float) -> None:
        while True:
            await asyncio.sleep(period)
            # To its end, also when the server stops: half known is not known.
            await asyncio.shield(self.write())

    def _count(self, entry: UsageEntry) -> None:
        key = entry.tenant, entry.task_id
        held = self._unwritten.get(key)
        self._unwritten[key] = entry if held is None else _sum(held, entry)


def _entry(outcome: Outcome) -> UsageEntry:
    return UsageEntry(
        tenant=outcome.tenant,
        task_id=outcome.task_id,
        requests=1,
        prompt_tokens=outcome.prompt_tokens,
        prefix_tokens=outcome.prefix_tokens,
        generated_tokens=outcome.generated_tokens,
    )


def _sum(one: UsageEntry, other: UsageEntry) -> UsageEntry:
    counts = (mine + its for mine, its in zip(one.counts, other.counts, strict=True))
    return UsageEntry(one.tenant, one.task_id, *counts)


def _merged(entries: Iterable[UsageEntry]) -> list[UsageEntry]:
    """One for each task, by name; the one without a task first."""
    found: dict[str | None, UsageEntry] = {}
    for entry in entries:
        held = found.get(entry.task_id)
        found[entry.task_id] = entry if held is None else _sum(held, entry)
    return sorted(found.values(), key=lambda entry: entry.task_id or "")


def _view(entry: UsageEntry) -> TaskUsage:
    return TaskUsage(entry.task_id, *entry.counts)
