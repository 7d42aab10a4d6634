"""One step's work: rows of tokens, as the plain integer arrays that a forward pass takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prefixmux_server.engine.messages import RowRecord
from prefixmux_server.engine.request import Request
from prefixmux_server.memory.layout import Span


@dataclass(frozen=True, eq=False)
class BatchRow:
    """The next `count` tokens of one request's row."""

    request: Request
    count: int

    @property
    def span(self) -> Span:
        sequence = self.request.row
        return Span(sequence.lease, sequence.computed, self.count)

    @property
    def ends(self) -> bool:
        """Whether this step reaches the row's last token: then a next one is sampled."""
        return self.count == self.request.row.pending

    def record(self) -> RowRecord:
        row = self.request.row
        return RowRecord(
            id=self.request.submit.id,
            phase="prefill" if row.computed < self.request.prompt_tokens else "decode",
            tokens=self.count,
            prefix_tokens=row.lease.prefix_tokens,
        )


@dataclass(frozen=True)
class Batch:
    """T tokens of several rows, one row after another; `keep` are the tokens that want logits."""

    token_ids: list[int]
    positions: list[int]
    keep: list[int]
    spans: list[Span]


def assemble(rows: Sequence[BatchRow]) -> Batch:
    batch = Batch([], [], [], [])
    for row in rows:
        sequence, start = row.request.row, row.request.row.computed
        first = sequence.lease.position_offset + start
        batch.token_ids.extend(sequence.tokens[start : start + row.count])
        batch.positions.extend(range(first, first + row.count))
        batch.spans.append(row.span)
        if row.ends:
            batch.keep.append(len(batch.token_ids) - 1)
    return batch
