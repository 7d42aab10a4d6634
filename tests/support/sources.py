"""Prefix sources that look on, or spoil what passes through them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from prefixmux_server.memory.prefix import PrefixKey, PrefixKV
from prefixmux_server.memory.source import PrefixSource


@dataclass(frozen=True)
class Counted:
    """A source, and what was read from it."""

    source: PrefixSource
    loads: list[PrefixKey] = field(default_factory=list)

    def size(self, key: PrefixKey) -> int:
        return self.source.size(key)

    def load(self, key: PrefixKey) -> PrefixKV:
        self.loads.append(key)
        return self.source.load(key)

    @property
    def reloads(self) -> int:
        return len(self.loads) - len(set(self.loads))


@dataclass(frozen=True)
class Spoiled:
    """A source whose prefixes of these digests are NaN: no upload would take them in."""

    source: PrefixSource
    digests: Collection[str]

    def size(self, key: PrefixKey) -> int:
        return self.source.size(key)

    def load(self, key: PrefixKey) -> PrefixKV:
        kv = self.source.load(key)
        if key.digest not in self.digests:
            return kv
        sites = {site: _nan(tensor) for site, tensor in kv.sites.items()}
        embeddings = None if kv.embeddings is None else _nan(kv.embeddings)
        return replace(kv, sites=sites, embeddings=embeddings)


def _nan(tensor: Tensor) -> Tensor:
    return torch.full_like(tensor, float("nan"))
