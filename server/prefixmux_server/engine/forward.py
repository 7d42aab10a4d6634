"""Transactional forward passes: one bad row fails alone, the others never notice.

A pass is the model's forward and the choice of tokens after it. One that failed has moved nothing:
`computed` is advanced by the caller afterwards, and what a row wrote to its own cells is
overwritten when it runs again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from prefixmux_server.engine.batch import BatchRow, assemble
from prefixmux_server.engine.failpoints import Failpoints
from prefixmux_server.engine.messages import EngineError
from prefixmux_server.engine.sampler import Sampler, SamplingRow
from prefixmux_server.memory.layout import KVLayout
from prefixmux_server.model.causal import CausalModel


@dataclass
class StepResult:
    """`sampled` are the rows that reached their last token, each with the next one; None where
    the logits were not finite."""

    computed: list[BatchRow] = field(default_factory=list)
    sampled: list[tuple[BatchRow, int | None]] = field(default_factory=list)
    failed: list[tuple[BatchRow, EngineError]] = field(default_factory=list)


class Forward:
    """Runs rows through the model; on an exception, halves of them until the culprit is alone."""

    def __init__(
        self, model: CausalModel, layout: KVLayout, sampler: Sampler, failpoints: Failpoints
    ) -> None:
        self._model = model
        self._layout = layout
        self._sampler = sampler
        self._failpoints = failpoints

    def run(self, rows: Sequence[BatchRow]) -> StepResult:
        result = StepResult()
        self._bisect(rows, result)
        return result

    def _bisect(self, rows: Sequence[BatchRow], result: StepResult) -> None:
        try:
            sampled = self._pass(rows)
        except Exception as error:  # noqa: BLE001 - a batch may die of anything; find the row
            self._split(rows, error, result)
            return
        result.computed += rows
        result.sampled += sampled

    def _split(self, rows: Sequence[BatchRow], error: Exception, result: StepResult) -> None:
        if len(rows) == 1:
            message = f"this request's forward pass failed ({type(error).__name__})"
            result.failed.append((rows[0], EngineError("internal_error", message)))
            return
        middle = len(rows) // 2
        self._bisect(rows[:middle], result)
        self._bisect(rows[middle:], result)

    def _pass(self, rows: Sequence[BatchRow]) -> list[tuple[BatchRow, int | None]]:
        for row in rows:
            _check_prefixes(row)
        rows = sorted(rows, key=lambda row: self._layout.rank(row.request.row.lease))
        self._failpoints.before_forward([row.request.submit.id for row in rows])
        batch = assemble(rows)
        plan = self._layout.plan(batch.spans)
        logits = self._model.forward(batch.token_ids, batch.positions, batch.keep, plan)
        ended = [row for row in rows if row.ends]
        logits = self._failpoints.after_forward([r.request.submit.id for r in ended], logits)
        if not ended:
            return []
        return list(zip(ended, self._sampler.sample(logits, _contexts(ended)), strict=True))


def _contexts(rows: Sequence[BatchRow]) -> list[SamplingRow]:
    return [
        SamplingRow(r.request.submit.sampling, r.request.submit.input_ids, r.request.output)
        for r in rows
    ]


def _check_prefixes(row: BatchRow) -> None:
    """The invariant of the whole server: a row sees its own request's prefixes, and no others."""
    held = tuple(segment.key for segment in row.request.row.lease.segments)
    if held != row.request.keys:
        raise RuntimeError("a row's lease holds other prefixes than its request asked for")
