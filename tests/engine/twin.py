"""A tiny model loaded twice, by the server and by the slow reference, with prefixes of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from engine.prefixes import kv_of, prefixes_of, sites_of, spoiled
from support.beam_models import Tokens, search
from support.engines import TENANT, Answers, DictSource, EngineParts, make_engine
from support.models import load_folder
from support.slow import Asked, Piece, Slow
from support.tiny import prompt

from prefixmux_server.engine.messages import BeamOutput, Submit
from prefixmux_server.engine.params import SamplingParams
from prefixmux_server.engine.sampling.sampler import Sampler
from prefixmux_server.engine.sampling.shaping import SamplingRow
from prefixmux_server.memory.select import LayoutName
from prefixmux_server.model.load import LoadedModel

START = 2


@dataclass(frozen=True)
class Twin:
    """`pieces` by name; what they make a request say is the slow reference's answer."""

    loaded: LoadedModel
    slow: Slow
    pieces: Mapping[str, Piece]
    _answers: dict[tuple[Any, ...], Any] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path) -> Twin:
        loaded, slow = load_folder(folder), Slow(folder)
        pieces = sites_of(slow) if slow.model.seq2seq else prefixes_of(loaded, slow)
        return cls(loaded, slow, pieces)

    def source(self, ill: Collection[str] = ()) -> DictSource:
        """All pieces; those that are `ill` hold NaN."""
        source = DictSource()
        for name, piece in self.pieces.items():
            kv = kv_of(name, piece)
            source.prefixes[kv.key] = spoiled(kv) if name in ill else kv
        return source

    def engine(self, layout: LayoutName, **options: Any) -> EngineParts:
        options.setdefault("source", self.source())
        return make_engine(self.loaded, layout, **options)

    def ask(
        self,
        name: str,
        *prefixes: str,
        tokens: int = 6,
        more: int | None = None,
        new: int = 6,
        deadline: float | None = None,
        **sampling: Any,
    ) -> Submit:
        """`more`: the decoder's tokens to begin with, or those behind an infix."""
        behind = any(self.pieces[prefix].method.startswith("INFIX") for prefix in prefixes)
        count = (1 if self.slow.model.seq2seq or behind else 0) if more is None else more
        begun = prompt(count, seed=count)
        sampling = {"max_new_tokens": new, "ignore_eos": True, **sampling}
        return Submit(
            id=name,
            tenant=TENANT,
            prefixes=prefixes,
            input_ids=prompt(tokens, sum(map(ord, name))),
            decoder_ids=(START, *begun[1:]) if self.slow.model.seq2seq and begun else begun,
            sampling=SamplingParams(**sampling),
            deadline=deadline,
        )

    def expected(self, request: Submit) -> list[int]:
        """Greedy; no choice of it was close."""
        asked = self.asked(request, request.sampling.max_new_tokens)
        if asked not in self._answers:
            said = self.slow.greedy(self.told(asked))
            assert said.sure == len(said.tokens), "a close call decides nothing; ask otherwise"
            self._answers[asked] = list(said.tokens)
        return list(self._answers[asked])

    def logits(self, request: Submit, output: Sequence[int] = ()) -> torch.Tensor:
        """Raw ones `[vocabulary]`, of the token after this output."""
        key = (*self.asked(request, 1), tuple(output))
        if key not in self._answers:
            self._answers[key] = self._next(self.told(key[:4]), tuple(output))
        found: torch.Tensor = self._answers[key]
        return found

    def outputs(self, request: Submit, eos: Collection[int] = ()) -> list[list[int]]:
        """What each of its `n` outputs says, drawn with that one's own noise."""
        sampling, sampler = request.sampling, Sampler(frozenset(eos))
        ends = {*sampling.stop_token_ids, *(() if sampling.ignore_eos else eos)}
        seen = request.decoder_ids
        if not self.slow.model.seq2seq:
            seen = request.input_ids + request.decoder_ids
        found = []
        for index in range(sampling.n):
            said: list[int] = []
            while len(said) < sampling.max_new_tokens and not (said and said[-1] in ends):
                row = SamplingRow(sampling, seen, said, index)
                (token,) = sampler.sample(self.logits(request, said)[None], [row])
                assert isinstance(token, int)
                said.append(token)
            found.append(said)
        return found

    def beams(self, request: Submit, eos: Collection[int] = ()) -> tuple[BeamOutput, ...]:
        """The same search over logits that are made anew for every sequence."""
        asked = self.asked(request, 1)
        told = self.told(asked)
        begun = request.decoder_ids
        if not self.slow.model.seq2seq:
            begun = request.input_ids + request.decoder_ids

        def logits(sequences: Sequence[Tokens]) -> torch.Tensor:
            return torch.stack([self._next(told, tokens[len(begun) :]) for tokens in sequences])

        key = (*asked, request.sampling)
        if key not in self._answers:
            self._answers[key] = search(logits, request.sampling, begun, frozenset(eos))
        found: tuple[BeamOutput, ...] = self._answers[key]
        return found

    def _next(self, told: Asked, output: Tokens) -> torch.Tensor:
        if self.slow.model.seq2seq or told.decoder_ids:
            told = replace(told, decoder_ids=told.decoder_ids + output)
        else:
            told = replace(told, input_ids=told.input_ids + output)
        return self.slow.greedy(told).logits[0]

    def asked(self, request: Submit, new: int) -> tuple[Any, ...]:
        return request.prefixes, request.input_ids, request.decoder_ids, new

    def told(self, asked: tuple[Any, ...]) -> Asked:
        prefixes, input_ids, decoder_ids, new = asked
        return Asked(input_ids, new, tuple(self.pieces[name] for name in prefixes), decoder_ids)


def check_answers(twin: Twin, answers: Answers, requests: Sequence[Submit]) -> None:
    """Each is answered as if alone."""
    for request in requests:
        finished = answers.finished[request.id]
        assert finished.error is None, (request.id, finished.error)
        if request.sampling.n > 1:
            assert answers.outputs(request.id) == twin.outputs(request), request.id
            continue
        if request.sampling.beams is None:
            assert answers.tokens[request.id] == twin.expected(request), request.id
            continue
        wanted = twin.beams(request)
        assert [b.token_ids for b in finished.beams] == [b.token_ids for b in wanted], request.id
        for found, truth in zip(finished.beams, wanted, strict=True):
            assert abs(found.score - truth.score) < 1e-3, request.id


def check_unused(parts: EngineParts) -> None:
    """Nothing is held but prefixes that nobody uses."""
    assert not parts.engine.has_work
    parts.engine.check_integrity()
    while parts.residency.reclaim():
        pass
    capacity = parts.layout.capacity_tokens
    for layout in parts.layout.layouts.values():
        lease = layout.admit((), capacity)
        assert lease is not None, "something was not given back"
        layout.release(lease)
