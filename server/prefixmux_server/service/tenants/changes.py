"""What became of each change that a client asked for: told once, to whoever keeps account of it.

Never holds text: a task, a version and digests say what was changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from prefixmux_server.errors import PrefixmuxServerError
from prefixmux_server.service.tenants.tenant import Tenant
from prefixmux_store.errors import StoreError
from prefixmux_store.types import Version

Action = Literal["upload", "activate", "delete_task", "delete_version", "pin", "unpin"]


@dataclass(frozen=True)
class Change:
    """`code` is `ok`, `cancelled`, or the code of the error that the client got. `version` and
    `digests` as far as they are known by then."""

    action: Action
    tenant: str
    key_id: str | None
    task_id: str
    version: int | None
    digests: tuple[str, ...]
    code: str


ChangeObserver: TypeAlias = Callable[[Change], None]


@dataclass
class Asked:
    """A change under way."""

    version: int | None = None
    digests: tuple[str, ...] = field(default=())

    def found(self, version: Version) -> None:
        self.version, self.digests = version.version, version.digests


class Changes:
    """Of one event loop."""

    def __init__(self, observers: Sequence[ChangeObserver] = ()) -> None:
        self._observers = observers

    @contextmanager
    def asked(
        self, action: Action, tenant: Tenant, task_id: str, version: int | None = None
    ) -> Iterator[Asked]:
        """Tells how the body ended."""
        asked, code = Asked(version), "internal_error"
        try:
            yield asked
            code = "ok"
        except (PrefixmuxServerError, StoreError) as error:
            code = error.code
            raise
        except asyncio.CancelledError:
            code = "cancelled"
            raise
        finally:
            change = Change(
                action, tenant.name, tenant.key_id, task_id, asked.version, asked.digests, code
            )
            for tell in self._observers:
                tell(change)
