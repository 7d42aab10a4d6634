"""Transactional forward passes: one bad row fails alone, the others never notice.

A pass is the model's forward and the choice of tokens after it. One that failed has moved nothing:
`computed` is advanced by the caller afterwards, and what a row wrote to its own cells is
overwritten when it runs again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from prefixmux_server.engine.batch import BatchRow, assemble, pieces_of
from prefixmux_server.engine.failpoints import Failpoints
from prefixmux_server.engine.messages import EngineError
from prefixmux_server.engine.sampling.choice import Chooser, Said
from prefixmux_server.memory.memory import KVMemory
from prefixmux_server.model.inputs import SequenceModel


@dataclass
class StepResult:
    """`said` is by pass: one, unless some had to be repeated with fewer rows."""

    computed: list[BatchRow] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    failed: list[tuple[BatchRow, EngineError]] = field(default_factory=list)


class Forward:
    """Runs rows through the model; on an exception, halves of them until the culprit is alone."""

    def __init__(
        self, model: SequenceModel, memory: KVMemory, chooser: Chooser, failpoints: Failpoints
    ) -> None:
        self._model = model
        self._memory = memory
        self._chooser = chooser
        self._failpoints = failpoints

    def run(self, rows: Sequence[BatchRow]) -> StepResult:
        result = StepResult()
        self._bisect(rows, result)
        return result

    def _bisect(self, rows: Sequence[BatchRow], result: StepResult) -> None:
        try:
            said = self._pass(rows)
        except Exception as error:  # noqa: BLE001 - a batch may die of anything; find the row
            self._split(rows, error, result)
            return
        result.computed += rows
        result.said.append(said)

    def _split(self, rows: Sequence[BatchRow], error: Exception, result: StepResult) -> None:
        if len(rows) == 1:
            message = f"this request's forward pass failed ({type(error).__name__})"
            result.failed.append((rows[0], EngineError("internal_error", message)))
            return
        middle = len(rows) // 2
        self._bisect(rows[:middle], result)
        self._bisect(rows[middle:], result)

    def _pass(self, rows: Sequence[BatchRow]) -> Said:
        for row in rows:
            _check_prefixes(row)
        pieces = pieces_of(rows)
        self._failpoints.before_forward([piece.row.request.submit.id for piece in pieces])
        logits = self._model.forward(assemble(pieces, self._memory))
        wanting = [piece.row.request.submit.id for piece in pieces for _ in piece.wanted]
        logits = self._failpoints.after_forward(wanting, logits)
        return self._chooser.read(pieces, logits)


def _check_prefixes(row: BatchRow) -> None:
    """The invariant of the whole server: a row sees its own request's prefixes, and no others."""
    for sequence in row.request.sequences:
        lease = sequence.lease
        held = tuple(prefix.kv.key for prefix in lease.prefixes)
        segments = tuple(segment.key for segment in lease.decoder.segments)
        crossing = held if lease.cross is None else tuple(s.key for s in lease.cross.segments)
        if not held == segments == crossing == row.request.keys:
            raise RuntimeError("a row's lease holds other prefixes than its request asked for")
