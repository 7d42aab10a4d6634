"""One tiny model with its own truth: prompts, prefixes by name, and their expected tokens."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel

from prefixmux_server.engine.messages import Submit
from prefixmux_server.memory.select import LayoutName
from prefixmux_server.model.load import LoadedModel
from support.engines import DictSource, EngineParts, make_engine, submit
from support.models import VOCABULARY, random_prefix
from support.reference import greedy

LAYOUTS: tuple[LayoutName, ...] = ("rows", "slots")


def prompt(tokens: int, seed: int) -> tuple[int, ...]:
    """Random ids of the tiny vocabulary, none of them special."""
    rng = random.Random(seed)
    return tuple(rng.randrange(3, VOCABULARY) for _ in range(tokens))


@dataclass
class Tiny:
    """`reference` is an untouched copy of what `loaded` holds. Answers are remembered."""

    loaded: LoadedModel
    reference: PreTrainedModel
    _answers: dict[tuple[Any, ...], list[int]] = field(default_factory=dict)

    def prefix(self, tokens: int, seed: int = 0) -> torch.Tensor:
        return random_prefix(self.loaded, tokens, seed)

    def bytes_of(self, tokens: int) -> int:
        """Of a prefix of so many tokens."""
        return tokens * self.loaded.specs["decoder"].bytes_per_token(self.loaded.module.dtype)

    def source(self, **lengths: int) -> DictSource:
        """Prefixes by digest, each of its own random content."""
        source = DictSource()
        for digest, tokens in lengths.items():
            source.add(digest, self.prefix(tokens, seed=sum(map(ord, digest))))
        return source

    def engine(self, layout: LayoutName, **options: Any) -> EngineParts:
        return make_engine(self.loaded, layout, **options)

    def expected(self, source: DictSource, request: Submit) -> list[int]:
        """The model's own greedy tokens: prefixes in a row act as one long prefix."""
        found = [kv for key, kv in source.prefixes.items() if key.tenant == request.tenant]
        by_digest = {kv.key.digest: kv.sites["decoder"] for kv in found}
        return self.greedy(
            request.input_ids,
            request.sampling.max_new_tokens,
            [by_digest[digest] for digest in request.prefixes],
        )

    def greedy(
        self, input_ids: Sequence[int], count: int, prefixes: Sequence[torch.Tensor] = ()
    ) -> list[int]:
        sums = tuple(float(tensor.double().sum()) for tensor in prefixes)
        name = (tuple(input_ids), count, sums)
        if name not in self._answers:
            joined = torch.cat(list(prefixes), dim=2) if prefixes else None
            self._answers[name] = greedy(self.reference, input_ids, count, joined)
        return self._answers[name]


def ask(
    request_id: str,
    *prefixes: str,
    tokens: int = 6,
    new: int = 8,
    seed: int | None = None,
    **options: Any,
) -> Submit:
    """A greedy request that runs to its full length, with a prompt of its own."""
    ids = prompt(tokens, sum(map(ord, request_id)) if seed is None else seed)
    options.setdefault("ignore_eos", True)
    return submit(request_id, ids, prefixes=prefixes, max_new_tokens=new, **options)
