"""One step's work: rows of tokens, as the plain integer arrays that a forward pass takes."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from prefixmux_server.engine.prompt import Virtual
from prefixmux_server.engine.record import RowRecord
from prefixmux_server.engine.request import Request, Sequence
from prefixmux_server.memory.memory import KVMemory, RowSpan
from prefixmux_server.model.inputs import ForwardInputs, TokenInputs


@dataclass(frozen=True, eq=False)
class BatchRow:
    """The next `count` tokens of each of one request's rows; `encodes`: its encoder pass too.

    Of use until the step is committed, as its pieces are.
    """

    request: Request
    count: int
    encodes: bool = False

    @property
    def ends(self) -> bool:
        """Whether this step reaches the rows' last tokens: then next ones are chosen."""
        return self.count == self.request.row.pending

    @property
    def encoded(self) -> int:
        return len(self.request.known.encoder) if self.encodes else 0

    @cached_property
    def told(self) -> Seq[int]:
        """Own tokens of this step whose logits tell of the prompt's token after each, where that
        was asked for. What a virtual token would have to be is no question."""
        if not self.request.tells_prompt:
            return ()
        start, prompt = self.request.row.computed, self.request.known
        return [own for own in range(start, start + self.count) if prompt.is_real(own + 1)]

    def record(self) -> RowRecord:
        return RowRecord(
            id=self.request.submit.id,
            phase="prefill" if self.request.in_prompt else "decode",
            tokens=self.count * len(self.request.sequences),
            prefix_tokens=self.request.row.lease.decoder.prefix_tokens,
            encoder_tokens=self.encoded,
        )


@dataclass(frozen=True, eq=False)
class Piece:
    """One row of memory in a step: the sequence number `index` of its request."""

    row: BatchRow
    index: int

    @property
    def sequence(self) -> Sequence:
        return self.row.request.sequences[self.index]

    @property
    def encoded(self) -> int:
        return self.row.encoded if self.index == 0 else 0

    @cached_property
    def wanted(self) -> Seq[int]:
        """Own tokens of this step that want logits, in order."""
        last = self.sequence.computed + self.row.count - 1
        told = self.row.told
        return [*told, last] if self.row.ends and last not in told[-1:] else told

    @property
    def outputs(self) -> Seq[int]:
        """Those that the last logits are for: all of the request's until its rows part."""
        request = self.row.request
        if not request.submit.sampling.max_new_tokens:
            return ()
        return request.open[self.index : self.index + 1] if request.parted else request.open


@dataclass
class _Tokens:
    """A ragged batch in the making."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    embeddings: dict[int, Tensor] = field(default_factory=dict)
    unscaled: list[range] = field(default_factory=list)

    def add(self, ids: Seq[int], position: int, virtual: Seq[Virtual], start: int) -> None:
        """Tokens `start ..` of a row, the first of them at `position`."""
        first = len(self.ids)
        self.ids.extend(ids)
        self.positions.extend(range(position, position + len(ids)))
        for part in virtual:
            begin, end = max(part.start, start), min(part.stop, start + len(ids))
            if begin < end:
                rows = part.embeddings[begin - part.start : end - part.start]
                self.embeddings[first + begin - start] = rows

    def inputs(self) -> TokenInputs:
        return TokenInputs(self.ids, self.positions, self.embeddings, self.unscaled)


def pieces_of(rows: Seq[BatchRow]) -> list[Piece]:
    return [Piece(row, index) for row in rows for index in range(len(row.request.sequences))]


def assemble(pieces: Seq[Piece], memory: KVMemory) -> ForwardInputs:
    """T tokens of several rows, one row after another; logits are `wanted` in the same order."""
    tokens, encoder, keep, spans = _Tokens(), _Tokens(), [], []
    for piece in pieces:
        sequence, count = piece.sequence, piece.row.count
        prompt, start = piece.row.request.known, sequence.computed
        virtual = () if prompt.virtual is None else (prompt.virtual,)
        first, position = len(tokens.ids), sequence.lease.decoder.position(start)
        tokens.add(sequence.tokens[start : start + count], position, virtual, start)
        spans.append(RowSpan(sequence.lease, start, count, piece.encoded))
        if piece.encoded:
            _add_encoder(encoder, piece.row.request)
        keep += [first - start + own for own in piece.wanted]
    encoding = encoder.inputs() if encoder.ids else None
    return ForwardInputs(tokens.inputs(), keep, memory.plans(spans), encoding)


def _add_encoder(encoder: _Tokens, request: Request) -> None:
    prompt, first = request.known, len(encoder.ids)
    encoder.add(prompt.encoder, 0, prompt.encoder_virtual, 0)
    if prompt.encoder_virtual:
        encoder.unscaled.append(range(first, len(encoder.ids)))
