"""What each forward pass held, as one tenant may see it.

Owns the names of recent requests, which the engine never learns. Rows of other tenants are there,
so that a batch can be seen whole, but without id or task.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from prefixmux_server.engine.front import EngineFront
from prefixmux_server.engine.record import RowRecord, StepRecord

NAMES_KEPT = 16_384
Begun: TypeAlias = Callable[[str, str, str | None], None]


@dataclass(frozen=True)
class StepRow:
    """One row: `tokens` were run for it, behind `prefix_tokens` of its prefix, and
    `encoder_tokens` in the step that held its encoder's pass."""

    request_id: str | None
    task_id: str | None
    phase: Literal["prefill", "decode"]
    tokens: int
    prefix_tokens: int
    encoder_tokens: int


@dataclass(frozen=True)
class Step:
    """One forward pass; `waiting` requests were queued, `seconds` is what it took."""

    step: int
    rows: list[StepRow]
    waiting: int
    seconds: float


@dataclass(frozen=True)
class Steps:
    items: list[Step]


class StepLog:
    """Bounded: the oldest name is forgotten first, and its row is then shown without one.

    `begun` hears of each request that is named.
    """

    def __init__(self, engine: EngineFront, begun: Begun) -> None:
        self._engine = engine
        self._begun = begun
        self._names: OrderedDict[str, tuple[str, str | None]] = OrderedDict()

    def name(self, request_id: str, tenant: str, task_id: str | None) -> None:
        self._begun(request_id, tenant, task_id)
        self._names[request_id] = (tenant, task_id)
        if len(self._names) > NAMES_KEPT:
            self._names.popitem(last=False)

    def since(self, step: int, limit: int, tenant: str) -> Steps:
        """The first `limit` of those after `step` that are still known."""
        records = self._engine.steps(step)[:limit]
        return Steps([self._step(record, tenant) for record in records])

    def _step(self, record: StepRecord, tenant: str) -> Step:
        rows = [self._row(row, tenant) for row in record.rows]
        return Step(record.step, rows, record.waiting, record.seconds)

    def _row(self, row: RowRecord, tenant: str) -> StepRow:
        owner, task_id = self._names.get(row.id, (None, None))
        request_id = row.id if owner == tenant else None
        task_id = task_id if owner == tenant else None
        return StepRow(
            request_id, task_id, row.phase, row.tokens, row.prefix_tokens, row.encoder_tokens
        )
