"""The rows that a proof runs: random tokens behind random prefixes, always the same ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prefixmux_server.memory.prefix import CROSS, DECODER, ENCODER, PrefixKey, PrefixKV
from prefixmux_server.model.binding import Binding
from prefixmux_server.model.errors import UnsupportedModelError
from prefixmux_server.model.limits import positions_of, vocabulary_of

# What the longest of the rows takes up.
_POSITIONS = 12


@dataclass(frozen=True, eq=False)
class Trial:
    """One row: its tokens, the prefix before them, and how far from the start they stand.

    `virtual` embeddings `[P, width]` stand before the encoder's tokens, or a decoder-only model's.
    """

    token_ids: tuple[int, ...]
    prefix: PrefixKV
    encoder_ids: tuple[int, ...] = ()
    shift: int = 0
    virtual: Tensor | None = None


class TrialMaker:
    """Prefixes of other lengths at each site, so that none can be taken for another."""

    def __init__(self, module: PreTrainedModel, binding: Binding) -> None:
        self._module = module
        self._binding = binding
        self._context = positions_of(module)
        self._generator = torch.Generator().manual_seed(0)
        self._made = 0

    def plain(self) -> list[Trial]:
        """Raises UnsupportedModelError for a model that has too few positions for them."""
        if self._context is not None and self._context < _POSITIONS:
            raise UnsupportedModelError(
                f"{type(self._module).__name__} has {self._context} positions; a model needs at "
                f"least {_POSITIONS} to be proven"
            )
        if self._binding.encodes:
            return [
                self._trial(5, encoded=5),
                self._trial(6, {ENCODER: 2, DECODER: 3, CROSS: 4}, encoded=4),
                self._trial(4, {DECODER: 2, CROSS: 1}, encoded=7, offset=0),
                self._trial(5, {ENCODER: 3}, encoded=3),
            ]
        return [self._trial(5), self._trial(9, {DECODER: 3}), *self._far()]

    def virtual(self, width: int) -> list[Trial]:
        """Two rows with virtual tokens, and one in the same steps that has none."""
        plain, *others = (
            [self._trial(4, encoded=5), self._trial(5, encoded=3), self._trial(4, encoded=4)]
            if self._binding.encodes
            else [self._trial(5), self._trial(4), self._trial(5)]
        )
        return [
            plain,
            *(replace(t, virtual=self._random(3 + i, width)) for i, t in enumerate(others)),
        ]

    def _far(self) -> list[Trial]:
        """Some models scale every row's positions by the farthest of the batch."""
        return [] if self._context is None else [self._trial(4, shift=self._context - 4)]

    def _trial(
        self,
        tokens: int,
        prefix: Mapping[str, int] | None = None,
        *,
        encoded: int = 0,
        offset: int | None = None,
        shift: int = 0,
    ) -> Trial:
        self._made += 1
        sites = {site: self._kv(site, count) for site, count in (prefix or {}).items()}
        at = (prefix or {}).get(DECODER, 0) if offset is None else offset
        kv = PrefixKV(PrefixKey("", f"trial-{self._made}"), sites, {DECODER: at})
        return Trial(self._ids(tokens), kv, self._ids(encoded), shift)

    def _kv(self, site: str, tokens: int) -> Tensor:
        spec = self._binding.sites[site]
        return self._random(spec.layers, 2, tokens, spec.kv_heads, spec.k_dim)

    def _random(self, *shape: int) -> Tensor:
        made = torch.randn(shape, generator=self._generator)
        return made.to(self._module.device, self._module.dtype)

    def _ids(self, tokens: int) -> tuple[int, ...]:
        vocabulary = vocabulary_of(self._module)
        ids: list[int] = torch.randint(vocabulary, (tokens,), generator=self._generator).tolist()
        return tuple(ids)
