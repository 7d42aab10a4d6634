"""Runs the rows of the proof by the server's own means: its memory, plans and ragged steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from prefixmux_server.memory.memory import KVMemory, PlacedPrefix, RowLease, RowNeeds, RowSpan
from prefixmux_server.model.inputs import ForwardInputs, SequenceModel, TokenInputs
from prefixmux_server.model.trial import Trial


@dataclass(frozen=True, eq=False)
class _Row:
    """A trial that has its place in memory. Its tokens run in the parts that `cuts` make, one a
    step from step `start` on; the first of them has the encoder pass."""

    trial: Trial
    placed: PlacedPrefix
    lease: RowLease
    start: int
    cuts: tuple[int, ...]

    def part(self, step: int) -> range:
        local = step - self.start
        if not 0 <= local < len(self.cuts) - 1:
            return range(0)
        return range(self.cuts[local], self.cuts[local + 1])


@dataclass
class _Tokens:
    """One side of a ragged batch while it is put together."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    virtual: dict[int, Tensor] = field(default_factory=dict)
    unscaled: list[range] = field(default_factory=list)

    def add(self, ids: Sequence[int], first_position: int) -> None:
        self.positions += range(first_position, first_position + len(ids))
        self.ids += ids

    def inputs(self) -> TokenInputs:
        return TokenInputs(self.ids, self.positions, self.virtual, self.unscaled)


def run_trials(model: SequenceModel, memory: KVMemory, trials: Sequence[Trial]) -> list[Tensor]:
    """Logits `[tokens - 1, vocabulary]` of each: after all of its own tokens but the first.

    Rows join in turn, and each runs most of its tokens at once and the last two one by one.
    """
    rows = [_admit(memory, trial, index % 2) for index, trial in enumerate(trials)]
    found: list[list[Tensor]] = [[] for _ in rows]
    for step in range(max(row.start + len(row.cuts) - 1 for row in rows)):
        running = [index for index, row in enumerate(rows) if row.part(step)]
        logits = model.forward(_inputs(memory, [rows[index] for index in running], step))
        for index in running:
            count = len(_kept(rows[index].part(step)))
            found[index].append(logits[:count])
            logits = logits[count:]
    for row in rows:
        memory.release([row.lease])
        memory.displace(row.placed)
    # An embedding in front of a decoder-only model's row is one of its tokens.
    return [
        torch.cat(parts)[1 - len(row.trial.token_ids) :].float()
        for row, parts in zip(rows, found, strict=True)
    ]


def _admit(memory: KVMemory, trial: Trial, start: int) -> _Row:
    virtual = 0 if trial.virtual is None else len(trial.virtual)
    encoded = len(trial.encoder_ids)
    own = len(trial.token_ids) + (0 if encoded else virtual)
    placed = memory.place(trial.prefix)
    assert placed is not None, "the trial memory is too small"
    needs = RowNeeds(own, encoded=encoded + virtual if encoded else 0)
    leases = memory.admit([placed], needs)
    assert leases is not None, "the trial memory is too small"
    return _Row(trial, placed, leases[0], start, (0, own - 2, own - 1, own))


def _inputs(memory: KVMemory, rows: Sequence[_Row], step: int) -> ForwardInputs:
    decoder, encoder, spans = _Tokens(), _Tokens(), []
    keep: list[int] = []
    for row in rows:
        trial, part = row.trial, row.part(step)
        keep += (len(decoder.ids) + token - part.start for token in _kept(part))
        encoded = 0
        if trial.encoder_ids and not part.start:
            encoded = _add_whole(encoder, trial.encoder_ids, trial.virtual)
        _add_part(decoder, row, part)
        spans.append(RowSpan(row.lease, part.start, len(part), encoded))
    return ForwardInputs(
        decoder.inputs(),
        keep,
        memory.plans(spans),
        encoder.inputs() if encoder.ids else None,
    )


def _kept(part: range) -> range:
    """Not a row's first token, so that leaving logits out is proven, too."""
    return range(max(1, part.start), part.stop)


def _add_whole(tokens: _Tokens, ids: Sequence[int], virtual: Tensor | None) -> int:
    """An encoder's row: what stands beside virtual tokens is not scaled."""
    first, count = len(tokens.ids), len(ids)
    if virtual is not None:
        tokens.virtual[first] = virtual
        count += len(virtual)
        tokens.unscaled.append(range(first + len(virtual), first + count))
    tokens.add([*([0] * (count - len(ids))), *ids], 0)
    return count


def _add_part(tokens: _Tokens, row: _Row, part: range) -> None:
    trial = row.trial
    ids: list[int] = list(trial.token_ids)
    if trial.virtual is not None and not trial.encoder_ids:
        ids = [0] * len(trial.virtual) + ids
        cut = trial.virtual[part.start : part.stop]
        if len(cut):
            tokens.virtual[len(tokens.ids)] = cut
    first = row.lease.decoder.position(part.start) + trial.shift
    tokens.add(ids[part.start : part.stop], first)
