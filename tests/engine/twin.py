"""A tiny model loaded twice, by the server and by the slow reference, with prefixes of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from support.beam_models import Tokens, search
from support.engines import TENANT, Answers, DictSource, EngineParts, make_engine
from support.models import load_folder, random_prefix
from support.slow import Asked, Piece, Slow
from support.tiny import prompt

from prefixmux_server.engine.messages import BeamOutput, Submit
from prefixmux_server.engine.params import SamplingParams
from prefixmux_server.memory.prefix import DECODER, PrefixKey, PrefixKV
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
        return cls(loaded, slow, _sites(slow) if slow.model.seq2seq else _prefixes(loaded, slow))

    def source(self, spoiled: Collection[str] = ()) -> DictSource:
        source = DictSource()
        for name, piece in self.pieces.items():
            kv = kv_of(name, piece)
            source.prefixes[kv.key] = _nan(kv) if name in spoiled else kv
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
        asked = self._asked(request, request.sampling.max_new_tokens)
        if asked not in self._answers:
            said = self.slow.greedy(self._told(asked))
            assert said.sure == len(said.tokens), "a close call decides nothing; ask otherwise"
            self._answers[asked] = list(said.tokens)
        return list(self._answers[asked])

    def beams(self, request: Submit, eos: Collection[int] = ()) -> tuple[BeamOutput, ...]:
        """The same search over logits that are made anew for every sequence."""
        asked = self._asked(request, 1)
        told = self._told(asked)
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

    def _asked(self, request: Submit, new: int) -> tuple[Any, ...]:
        return request.prefixes, request.input_ids, request.decoder_ids, new

    def _told(self, asked: tuple[Any, ...]) -> Asked:
        prefixes, input_ids, decoder_ids, new = asked
        return Asked(input_ids, new, tuple(self.pieces[name] for name in prefixes), decoder_ids)


def check_answers(twin: Twin, answers: Answers, requests: Sequence[Submit]) -> None:
    """Each is answered as if alone."""
    for request in requests:
        finished = answers.finished[request.id]
        assert finished.error is None, (request.id, finished.error)
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


def kv_of(name: str, piece: Piece) -> PrefixKV:
    """As a source hands it out."""
    key = PrefixKey(TENANT, name)
    if piece.method == "INFIX_EMBEDDING":
        delta = piece.sites[DECODER]
        return PrefixKV(key, {}, {}, infix=True, embeddings=piece.embeddings, delta=delta)
    return PrefixKV(
        key,
        piece.sites,
        {DECODER: piece.offset},
        infix=piece.method == "INFIX_TUNING",
        embeddings=piece.embeddings,
        token_ids=piece.token_ids,
    )


def _prefixes(loaded: LoadedModel, slow: Slow) -> dict[str, Piece]:
    kv = {tokens: random_prefix(loaded, tokens, seed=tokens, scale=2.0) for tokens in (3, 4, 5, 9)}
    return {
        "five": Piece("PREFIX_TUNING", {DECODER: kv[5]}, 5),
        "unshifted": Piece("PREFIX_TUNING", {DECODER: kv[9]}, 0),
        "embedded": Piece("PROMPT_TUNING", embeddings=_virtual(slow, 6)),
        "text": Piece("TEXT", token_ids=prompt(7, seed=1)),
        "infix": Piece("INFIX_TUNING", {DECODER: kv[4]}, 4),
        "infix-embedded": Piece("INFIX_EMBEDDING", {DECODER: kv[3]}, 3, _virtual(slow, 3)),
    }


def _sites(slow: Slow) -> dict[str, Piece]:
    shapes = slow.model.shapes()

    def kv(offset: int, **lengths: int) -> Piece:
        sites = {}
        for site, tokens in lengths.items():
            layers, heads, width = shapes[site]
            generator = torch.Generator().manual_seed(tokens)
            sites[site] = torch.randn(layers, 2, tokens, heads, width, generator=generator) * 2
        return Piece("PREFIX_TUNING", sites, offset)

    return {
        "five": kv(5, decoder=5),
        "three-site": kv(8, decoder=8, encoder=3, cross=5),
        "encoder": kv(0, encoder=6),
        "cross": kv(0, cross=4),
        "embedded": Piece("PROMPT_TUNING", embeddings=_virtual(slow, 6)),
        "text": Piece("TEXT", token_ids=prompt(7, seed=1)),
    }


def _virtual(slow: Slow, tokens: int) -> torch.Tensor:
    spread = slow.model.embed(range(3, 90))
    generator = torch.Generator().manual_seed(tokens)
    return torch.randn(tokens, spread.shape[1], generator=generator) * spread.std()


def _nan(kv: PrefixKV) -> PrefixKV:
    nan = float("nan")
    sites = {site: torch.full_like(tensor, nan) for site, tensor in kv.sites.items()}
    embeddings = None if kv.embeddings is None else torch.full_like(kv.embeddings, nan)
    return replace(kv, sites=sites, embeddings=embeddings)
