"""Requests told token by token through a model wrapper, over plans made of plain lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from model.listed import ListedPlan, ListedRow, Part
from torch import Tensor

from prefixmux_server.memory.layout import SiteSpec
from prefixmux_server.model.binding import Binding, bind
from prefixmux_server.model.causal import CausalModel
from prefixmux_server.model.inputs import ForwardInputs, SequenceModel, TokenInputs
from prefixmux_server.model.interface import register_attention
from prefixmux_server.model.proof import Proof
from prefixmux_server.model.seq2seq import Seq2SeqModel
from prefixmux_server.model.weights import load_weights


@dataclass(frozen=True, eq=False)
class Story:
    """One greedy request. `ids` are the decoder's start, `encoder_ids` what an encoder reads.

    `virtual` embeddings run in front of the encoder's tokens, or of a decoder-only model's.
    `joins` is the step that it begins in; `chunk` how many of its tokens one step takes.
    """

    ids: Sequence[int]
    count: int
    encoder_ids: Sequence[int] = ()
    sites: Mapping[str, Tensor] = field(default_factory=dict)
    offset: int = 0
    virtual: Tensor | None = None
    joins: int = 0
    chunk: int = 3
    eos: int | None = None


@dataclass
class Told:
    """`logits` `[steps, vocabulary]` that each new token was chosen from."""

    tokens: list[int] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)


@dataclass
class Teller:
    """A model of either family. `asked` are the plans of every step, by site."""

    model: SequenceModel
    sites: Mapping[str, SiteSpec]
    asked: list[dict[str, ListedPlan]] = field(default_factory=list)

    def tell(self, stories: Sequence[Story]) -> list[Told]:
        """All of them, each step holding every row that has begun and not ended."""
        rows = [_Row(story, self.sites) for story in stories]
        step = 0
        while any(not row.ended for row in rows):
            running = [row for row in rows if row.story.joins <= step and not row.ended]
            if running:
                self._step(running)
            step += 1
        return [row.told for row in rows]

    def _step(self, rows: Sequence[_Row]) -> None:
        decoder, encoder = _Side(), _Side()
        parts: dict[str, list[Part]] = {site: [] for site in self.sites}
        keep: list[int] = []
        for row in rows:
            span = decoder.add(row, row.next_part())
            parts["decoder"].append(
                Part(row.sites["decoder"], span, span, decoder.positions[span.start :], True)
            )
            if row.last:
                keep.append(span.stop - 1)
            if "cross" in self.sites:
                read = range(0)
                if row.begins:
                    read = encoder.add(row, row.encoded())
                    own = Part(row.sites["encoder"], read, read, range(len(read)), False)
                    parts["encoder"].append(own)
                parts["cross"].append(Part(row.sites["cross"], span, read, range(len(read)), False))
        plans = {site: ListedPlan(spec, parts[site]) for site, spec in self.sites.items()}
        self.asked.append(plans)
        given = ForwardInputs(
            decoder.given(), keep, plans, encoder.given() if encoder.ids else None
        )
        logits = self.model.forward(given)
        assert len(logits) == len(keep)
        chosen = iter(logits)
        for row in rows:
            row.advance(next(chosen) if row.last else None)


@dataclass(frozen=True)
class _Tokens:
    ids: Sequence[int]
    first_position: int
    virtual: Tensor | None = None
    unscaled: bool = False


@dataclass
class _Side:
    """One stack's tokens of a step."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    virtual: dict[int, Tensor] = field(default_factory=dict)
    unscaled: list[range] = field(default_factory=list)

    def add(self, row: _Row, tokens: _Tokens) -> range:
        first = len(self.ids)
        ahead = 0 if tokens.virtual is None else len(tokens.virtual)
        self.ids += [0] * ahead + list(tokens.ids)
        span = range(first, len(self.ids))
        start = tokens.first_position
        self.positions += range(start, start + len(span))
        if tokens.virtual is not None and ahead:
            self.virtual[first] = tokens.virtual
        if tokens.unscaled:
            self.unscaled.append(range(first + ahead, span.stop))
        return span

    def given(self) -> TokenInputs:
        return TokenInputs(self.ids, self.positions, self.virtual, self.unscaled)


class _Row:
    def __init__(self, story: Story, specs: Mapping[str, SiteSpec]) -> None:
        self.story = story
        self.told = Told()
        self.begins = True
        self.sites = {
            site: ListedRow(story.sites.get(site), story.offset if site == "decoder" else 0)
            for site in specs
        }
        virtual = story.virtual if "encoder" not in specs else None
        self._virtual = torch.empty(0, 1) if virtual is None else virtual
        self._computed = 0
        self._count = 0

    @property
    def ended(self) -> bool:
        said = self.told.tokens
        done = bool(said) and said[-1] == self.story.eos
        return done or len(said) == self.story.count

    @property
    def last(self) -> bool:
        """Whether the part that runs now ends with the row's last known token."""
        return self._computed + self._count == self._known

    @property
    def _known(self) -> int:
        return len(self._virtual) + len(self.story.ids) + len(self.told.tokens)

    def next_part(self) -> _Tokens:
        self._count = min(self.story.chunk, self._known - self._computed)
        start, stop, ahead = self._computed, self._computed + self._count, len(self._virtual)
        ids = [*self.story.ids, *self.told.tokens][max(0, start - ahead) : max(0, stop - ahead)]
        return _Tokens(ids, self.story.offset + start, self._virtual[start:stop])

    def encoded(self) -> _Tokens:
        virtual = self.story.virtual
        return _Tokens(self.story.encoder_ids, 0, virtual, unscaled=virtual is not None)

    def advance(self, logits: Tensor | None) -> None:
        self.begins = False
        self._computed += self._count
        if logits is not None:
            self.told.logits.append(logits)
            self.told.tokens.append(int(logits.argmax()))


def bound(folder: Path, dtype: str = "float32") -> tuple[Teller, Binding]:
    """The model in a folder, bound but neither proven nor packed."""
    register_attention()
    module = load_weights(folder, torch.device("cpu"), dtype)
    binding = bind(module)
    embedding = Proof(module, binding).embedding()
    make = Seq2SeqModel if binding.encodes else CausalModel
    return Teller(make(module, binding, embedding), binding.sites), binding
