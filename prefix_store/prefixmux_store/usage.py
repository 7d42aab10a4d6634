"""What tenants have used, by task: counters that only grow and outlive the task.

Knows sums, no single request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prefixmux_store.connections import Connections
from prefixmux_store.errors import InvalidRequest
from prefixmux_store.guard import Guard
from prefixmux_store.names import check_task_id, check_tenant

_LARGEST = 2**53
_ADD = """
INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET requests = requests + excluded.requests,
    prompt_tokens = prompt_tokens + excluded.prompt_tokens,
    prefix_tokens = prefix_tokens + excluded.prefix_tokens,
    generated_tokens = generated_tokens + excluded.generated_tokens
"""
_OF = """
SELECT tenant, nullif(task_id, ''), requests, prompt_tokens, prefix_tokens, generated_tokens
FROM usage WHERE tenant = ? ORDER BY task_id
"""


@dataclass(frozen=True)
class UsageEntry:
    """`task_id` None: requests of the bare model."""

    tenant: str
    task_id: str | None
    requests: int
    prompt_tokens: int
    prefix_tokens: int
    generated_tokens: int

    @property
    def counts(self) -> tuple[int, ...]:
        return self.requests, self.prompt_tokens, self.prefix_tokens, self.generated_tokens


class UsageLedger:
    """Of one store; any thread, any process."""

    def __init__(self, connections: Connections, guard: Guard) -> None:
        self._connections = connections
        self._guard = guard

    def add(self, entries: Sequence[UsageEntry]) -> None:
        """All of them or, if this raises, none; durable when it returns. Adding again counts
        again."""
        rows = [_row(entry) for entry in entries]
        if rows:
            with self._guard.writing(), self._connections.writing() as db:
                db.executemany(_ADD, rows)

    def of(self, tenant: str) -> tuple[UsageEntry, ...]:
        """By task_id; the bare model first, if it was asked."""
        with self._connections.reading() as db:
            rows = db.execute(_OF, (tenant,)).fetchall()
        return tuple(UsageEntry(*row) for row in rows)


def _row(entry: UsageEntry) -> tuple[object, ...]:
    check_tenant(entry.tenant)
    task_id = "" if entry.task_id is None else check_task_id(entry.task_id)
    if not all(0 <= count <= _LARGEST for count in entry.counts):
        raise InvalidRequest("Usage is counted in whole numbers from 0 to 2**53.")
    return (entry.tenant, task_id, *entry.counts)
