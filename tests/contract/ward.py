"""One family under test: a tiny model, a store of its prefixes, and questions with their truths."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from contract.families import FAMILIES, Family
from contract.pieces import COMMON, DECODER_ONLY, ENCODER_DECODER, INFIXES, Maker, random_ids
from support.beam_models import search
from support.engines import TENANT
from support.models import EOS, load_folder, save_tiny
from support.native import native_file
from support.slow import Asked, Piece, Said, Slow
from support.stored import upload
from torch import Tensor

from prefixmux_server.engine.messages import BeamOutput, Submit
from prefixmux_server.engine.params import BeamParams, SamplingParams
from prefixmux_server.model.load import LoadedModel
from prefixmux_store.store import PrefixStore

TOKENS = 6
BEAMS = BeamParams(num_beams=3, num_return=3)
_PROMPTS = ((1, 1), (3, 2), (14, 1))
"""Tokens before and after an infix; of an encoder's input, and of a decoder's start."""


@dataclass(frozen=True, eq=False)
class Question:
    """One prompt behind a mixture of prefixes, named, and what it must be answered."""

    mixture: tuple[str, ...]
    asked: Asked
    said: Said

    @property
    def name(self) -> str:
        return f"{'+'.join(self.mixture) or 'bare'}/{len(self.asked.input_ids)}"

    @property
    def prompt(self) -> tuple[int, ...]:
        return (*self.asked.input_ids, *self.asked.decoder_ids)


@dataclass(frozen=True)
class Ward:
    """`model` is its folder, `root` that of a store of its prefixes, which go by name."""

    family: Family
    loaded: LoadedModel
    slow: Slow
    model: Path
    root: Path
    pieces: Mapping[str, Piece]
    digests: Mapping[str, str]
    questions: Sequence[Question]

    def bytes_of(self, name: str) -> int:
        """What a prefix takes in memory, once it is compiled."""
        piece = self.pieces[name]
        inputs = len(piece.token_ids) if piece.embeddings is None else len(piece.embeddings)
        if inputs and not piece.sites and not self.slow.model.seq2seq:
            return inputs * self.loaded.specs["decoder"].bytes_per_token(self.loaded.module.dtype)
        tensors = [*piece.sites.values(), piece.embeddings]
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    @cached_property
    def searches(self) -> list[tuple[Question, tuple[BeamOutput, ...]]]:
        """Some questions once more, as beam searches over the slow reference's logits."""
        params = SamplingParams(max_new_tokens=5, beams=BEAMS)
        return [(question, self._search(question, params)) for question in self.questions[1::4]]

    def _search(self, question: Question, params: SamplingParams) -> tuple[BeamOutput, ...]:
        row, prompt = self.slow.row(question.asked), question.prompt

        def logits_of(sequences: Sequence[tuple[int, ...]]) -> Tensor:
            return torch.stack([row.logits(tokens[len(prompt) :]) for tokens in sequences])

        return search(logits_of, params, prompt, frozenset({EOS}))

    def submit(self, question: Question, suffix: str = "", **sampling: Any) -> Submit:
        sampling = {"max_new_tokens": TOKENS, "ignore_eos": True, **sampling}
        return Submit(
            id=f"{question.name}{suffix}",
            tenant=TENANT,
            prefixes=tuple(self.digests[name] for name in question.mixture),
            input_ids=question.asked.input_ids,
            decoder_ids=question.asked.decoder_ids,
            sampling=SamplingParams(**sampling),
        )


def make_ward(name: str, root: Path) -> Ward:
    family = FAMILIES[name]
    folder = save_tiny(family.config(), root / "model")
    loaded, slow = load_folder(folder), Slow(folder)
    pieces = Maker(slow).pieces()
    with PrefixStore.open(root / "store") as store:
        digests = {
            piece: upload(store, loaded, piece, native_file(content))
            for piece, content in pieces.items()
        }
    questions = _questions(slow, pieces)
    return Ward(family, loaded, slow, folder, root / "store", pieces, digests, questions)


def random_questions(ward: Ward, rng: random.Random, count: int) -> list[Question]:
    """Prefixes in any number and order, prompts of any length, and no close call."""
    names, found = sorted(ward.pieces), list[Question]()
    while len(found) < count:
        mixture = tuple(rng.sample(names, rng.randrange(5)))
        # An infix that starts from embeddings stands alone.
        if "infix-embedded" in mixture and len(set(INFIXES) & set(mixture)) > 1:
            continue
        pieces = [ward.pieces[name] for name in mixture]
        before, after = rng.randrange(1, 40), rng.randrange(1, 5)
        question = _question(ward.slow, mixture, pieces, before, after)
        if question.said.sure == TOKENS:
            found.append(question)
    return found


def _questions(slow: Slow, pieces: Mapping[str, Piece]) -> list[Question]:
    """Every mixture twice, with prompts of two lengths."""
    rng = random.Random(0)
    own = ENCODER_DECODER if slow.model.seq2seq else DECODER_ONLY
    return [
        _question(slow, mixture, [pieces[name] for name in mixture], *lengths)
        for mixture in (*COMMON, *own)
        for lengths in rng.sample(_PROMPTS, 2)
    ]


def _question(
    slow: Slow, mixture: tuple[str, ...], pieces: Sequence[Piece], before: int, after: int
) -> Question:
    """Where no infix divides them, the tokens before and after are one prompt."""
    x, y = random_ids(before, seed=before), random_ids(after, seed=after)
    if slow.model.seq2seq:
        y = (2, *y[1:])
    elif not set(INFIXES) & set(mixture):
        x, y = (*x, *y), ()
    asked = Asked(x, TOKENS, tuple(pieces), y)
    return Question(mixture, asked, slow.greedy(asked))
