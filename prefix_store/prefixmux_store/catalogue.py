"""What a catalogue of tasks and versions has to offer: the one truth about what exists.

Knows digests, never the bytes behind them. Every method is one transaction, durable when it
returns, and may be called from any thread. Names are checked before they get here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from prefixmux_store.connections import Connections
from prefixmux_store.content import Content
from prefixmux_store.types import Defaults, Part, Task, Version


@dataclass(frozen=True)
class Draft:
    """A version that has no number yet."""

    tenant: str
    task_id: str
    content: Content
    description: str | None = None
    defaults: Defaults = field(default_factory=Defaults)

    def numbered(self, version: int, created_at: float) -> Version:
        content = self.content
        itself = Part(
            self.task_id, version, content.digests[0], content.prefix_tokens, content.method
        )
        return Version(
            tenant=self.tenant,
            task_id=self.task_id,
            version=version,
            digests=content.digests,
            method=content.method,
            sites=content.sites,
            position_offset=content.position_offset,
            prefix_tokens=content.prefix_tokens,
            bytes=content.bytes,
            base_model=content.base_model,
            base_fingerprint=content.base_fingerprint,
            description=self.description,
            created_at=created_at,
            parts=(itself,) if content.parts is None else content.parts,
            defaults=self.defaults,
        )


@dataclass(frozen=True)
class Commit:
    """How a draft becomes a version. `prepare` runs inside the transaction, before anything is
    written: what it finds holds until the version is visible, because a sweep waits."""

    activate: bool
    create_only: bool
    now: float
    prepare: Callable[[], None]


class Catalogue(Protocol):
    """Raises `TaskNotFound`, `VersionNotFound` and, for its own storage, `Unavailable`."""

    @property
    def connections(self) -> Connections:
        """To the same database, for what it holds beside tasks: keys, limits, usage."""
        ...

    def add(self, draft: Draft, commit: Commit) -> tuple[Version, bool]:
        """The version and whether it is new: the same parts with the same defaults in the same
        live task are found again. Numbers start at 1 and are never reused. Raises
        `PreconditionFailed` when `create_only` and the task is live, `QuotaExceeded` and
        `TenantFull` where the tenant's limits end."""
        ...

    def task(self, tenant: str, task_id: str) -> Task: ...

    def tasks(self, tenant: str, limit: int, after: str, query: str) -> list[Task]:
        """By task_id, those greater than `after` that contain `query`."""
        ...

    def version(self, tenant: str, task_id: str, version: int | None) -> Version:
        """None: the active one."""
        ...

    def versions(self, tenant: str, task_id: str, limit: int, after: int) -> list[Version]:
        """By number, those greater than `after`."""
        ...

    def activate(self, tenant: str, task_id: str, version: int, now: float) -> Task: ...

    def delete_task(self, tenant: str, task_id: str) -> None: ...

    def delete_version(self, tenant: str, task_id: str, version: int, now: float) -> None:
        """Raises `VersionActive`."""
        ...

    def references(self) -> list[tuple[str, str]]:
        """(tenant, digest) of every blob that a live version needs, each once."""
        ...

    def used(self, tenant: str) -> frozenset[str]:
        """The tenant's digests in use, as of now."""
        ...

    def sweeping(
        self, tenant: str, digests: Sequence[str]
    ) -> AbstractContextManager[frozenset[str]]:
        """Those of `digests` that are in use; no version can be added anywhere while it is
        entered."""
        ...

    def check_room(self, tenant: str, digest: str, size: int) -> None:
        """Raises `TenantFull` if a version of such a file would not be added now."""
        ...

    def unsized(self) -> list[tuple[str, str]]:
        """(tenant, digest) of blobs in use whose size no version tells."""
        ...

    def set_size(self, tenant: str, digest: str, size: int) -> None: ...

    def backup(self, path: Path) -> None:
        """A consistent copy, as a file that a catalogue can be opened on."""
        ...

    def close(self) -> None: ...
