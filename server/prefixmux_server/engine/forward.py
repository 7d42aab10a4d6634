"""Transactional forward passes: one bad row fails alone, the others never notice.

A failed pass has moved nothing: `computed` is advanced by the caller afterwards, and what a row
wrote to its own cells is overwritten when it runs again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from prefixmux_server.engine.batch import BatchRow, assemble
from prefixmux_server.engine.failpoints import Failpoints
from prefixmux_server.engine.messages import EngineError
from prefixmux_server.memory.layout import KVLayout
from prefixmux_server.model.causal import CausalModel


@dataclass
class StepResult:
    """`logits` has one `[n, vocabulary]` tensor per pass, its rows those of `ended` in order."""

    computed: list[BatchRow] = field(default_factory=list)
    ended: list[BatchRow] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    failed: list[tuple[BatchRow, EngineError]] = field(default_factory=list)


class Forward:
    """Runs rows through the model; on an exception, halves of them until the culprit is alone."""

    def __init__(self, model: CausalModel, layout: KVLayout, failpoints: Failpoints) -> None:
        self._model = model
        self._layout = layout
        self._failpoints = failpoints

    def run(self, rows: Sequence[BatchRow]) -> StepResult:
        result = StepResult()
        self._bisect(rows, result)
        return result

    def _bisect(self, rows: Sequence[BatchRow], result: StepResult) -> None:
        try:
            logits = self._pass(rows)
        except Exception as error:  # noqa: BLE001 - a batch may die of anything; find the row
            self._split(rows, error, result)
            return
        result.computed += rows
        result.ended += [row for row in rows if row.ends]
        result.logits.append(logits)

    def _split(self, rows: Sequence[BatchRow], error: Exception, result: StepResult) -> None:
        if len(rows) == 1:
            message = f"this request's forward pass failed ({type(error).__name__})"
            result.failed.append((rows[0], EngineError("internal_error", message)))
            return
        middle = len(rows) // 2
        self._bisect(rows[:middle], result)
        self._bisect(rows[middle:], result)

    def _pass(self, rows: Sequence[BatchRow]) -> Tensor:
        for row in rows:
            _check_prefixes(row)
        self._failpoints.before_forward([row.request.submit.id for row in rows])
        batch = assemble(rows)
        plan = self._layout.plan(batch.spans)
        logits = self._model.forward(batch.token_ids, batch.positions, batch.keep, plan)
        ended = [row.request.submit.id for row in rows if row.ends]
        return self._failpoints.after_forward(ended, logits)


def _check_prefixes(row: BatchRow) -> None:
    """The invariant of the whole server: a row sees its own request's prefixes, and no others."""
    held = tuple(segment.key for segment in row.request.row.lease.segments)
    if held != row.request.keys:
        raise RuntimeError("a row's lease holds other prefixes than its request asked for")
