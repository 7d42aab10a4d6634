"""Prefixes of every method for one model, of random content, and the mixtures to ask for."""

from __future__ import annotations

import random

import torch
from support.slow import Piece, Slow
from torch import Tensor

DECODER_ONLY: tuple[tuple[str, ...], ...] = (
    ("infix",),
    ("infix-unshifted",),
    ("infix-embedded",),
    ("five", "infix"),
    ("infix", "one", "infix-unshifted"),
    ("text", "unshifted", "infix-embedded"),
)
ENCODER_DECODER: tuple[tuple[str, ...], ...] = (
    ("three-site",),
    ("three-site-unshifted",),
    ("encoder",),
    ("cross",),
    ("three-site", "embedded", "text"),
    ("encoder", "five", "three-site-unshifted", "cross"),
)
COMMON: tuple[tuple[str, ...], ...] = (
    (),
    ("one",),
    ("five",),
    ("five-again",),
    ("unshifted",),
    ("seventeen",),
    ("embedded",),
    ("text",),
    ("text", "five"),
    ("unshifted", "embedded", "one"),
)
INFIXES = ("infix", "infix-unshifted", "infix-embedded")


class Maker:
    """Random content of the sizes that one model's own layers have."""

    def __init__(self, slow: Slow, seed: int = 0) -> None:
        self._shapes = slow.model.shapes()
        self._width = slow.model.embed([3]).shape[1]
        self._spread = float(slow.model.embed(range(3, 90)).std())
        self._seed = seed

    def pieces(self) -> dict[str, Piece]:
        """By the names that the mixtures use."""
        made = {
            name: self._kv(tokens, offset, "decoder")
            for name, tokens, offset in (
                ("one", 1, 1),
                ("five", 5, 5),
                ("five-again", 5, 5),
                ("unshifted", 9, 0),
                ("seventeen", 17, 17),
            )
        }
        made["embedded"] = Piece("PROMPT_TUNING", embeddings=self._embeddings(6))
        made["text"] = Piece("TEXT", token_ids=random_ids(7, seed=1))
        return {**made, **(self._infixes() if len(self._shapes) == 1 else self._sites())}

    def _infixes(self) -> dict[str, Piece]:
        shifted, unshifted = self._kv(4, 4, "decoder"), self._kv(4, 0, "decoder")
        added = self._kv(3, 3, "decoder")
        return {
            "infix": Piece("INFIX_TUNING", shifted.sites, 4),
            "infix-unshifted": Piece("INFIX_TUNING", unshifted.sites, 0),
            "infix-embedded": Piece("INFIX_EMBEDDING", added.sites, 3, self._embeddings(3)),
        }

    def _sites(self) -> dict[str, Piece]:
        return {
            "three-site": self._kv(8, 8, "decoder", encoder=3, cross=5),
            "three-site-unshifted": self._kv(2, 0, "decoder", encoder=7, cross=1),
            "encoder": self._kv(6, 0, "encoder"),
            "cross": self._kv(4, 0, "cross"),
        }

    def _kv(self, tokens: int, offset: int, site: str, **others: int) -> Piece:
        lengths = {site: tokens, **others}
        sites = {name: self._tensor(name, length) for name, length in lengths.items()}
        return Piece("PREFIX_TUNING", sites, offset)

    def _tensor(self, site: str, tokens: int) -> Tensor:
        layers, heads, width = self._shapes[site]
        return self._random(layers, 2, tokens, heads, width) * 2

    def _embeddings(self, tokens: int) -> Tensor:
        return self._random(tokens, self._width) * self._spread

    def _random(self, *shape: int) -> Tensor:
        self._seed += 1
        return torch.randn(shape, generator=torch.Generator().manual_seed(self._seed))


def random_ids(tokens: int, seed: int) -> tuple[int, ...]:
    """Of the tiny vocabulary, none of them special."""
    rng = random.Random(seed)
    return tuple(rng.randrange(3, 97) for _ in range(tokens))
