"""Prefixes of every kind of random content, for either family, and as a source hands them out."""

from __future__ import annotations

from dataclasses import replace

import torch
from support.engines import TENANT
from support.models import random_prefix
from support.slow import Piece, Slow
from support.tiny import prompt

from prefixmux_server.memory.prefix import DECODER, PrefixKey, PrefixKV
from prefixmux_server.model.load import LoadedModel


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


def prefixes_of(loaded: LoadedModel, slow: Slow) -> dict[str, Piece]:
    kv = {tokens: random_prefix(loaded, tokens, seed=tokens, scale=2.0) for tokens in (3, 4, 5, 9)}
    return {
        "five": Piece("PREFIX_TUNING", {DECODER: kv[5]}, 5),
        "unshifted": Piece("PREFIX_TUNING", {DECODER: kv[9]}, 0),
        "embedded": Piece("PROMPT_TUNING", embeddings=_virtual(slow, 6)),
        "text": Piece("TEXT", token_ids=prompt(7, seed=1)),
        "infix": Piece("INFIX_TUNING", {DECODER: kv[4]}, 4),
        "infix-embedded": Piece("INFIX_EMBEDDING", {DECODER: kv[3]}, 3, _virtual(slow, 3)),
    }


def sites_of(slow: Slow) -> dict[str, Piece]:
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


def spoiled(kv: PrefixKV) -> PrefixKV:
    nan = float("nan")
    sites = {site: torch.full_like(tensor, nan) for site, tensor in kv.sites.items()}
    embeddings = None if kv.embeddings is None else torch.full_like(kv.embeddings, nan)
    return replace(kv, sites=sites, embeddings=embeddings)
