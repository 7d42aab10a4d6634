"""A prefix in host memory, ready to be seen by rows. Knows tensors, not files or names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

DECODER = "decoder"


@dataclass(frozen=True)
class PrefixKey:
    """Who a prefix is inside the engine: never a task name, so no rename can confuse two."""

    tenant: str
    digest: str


@dataclass(frozen=True)
class PrefixKV:
    """Keys and values per attention site, each `[L, 2, P, H_kv, D]` (0 keys, 1 values).

    `offsets` says per site by how many positions the tokens after it are shifted.
    """

    key: PrefixKey
    sites: Mapping[str, Tensor]
    offsets: Mapping[str, int]

    @property
    def nbytes(self) -> int:
        return sum(kv.numel() * kv.element_size() for kv in self.sites.values())

    def tokens(self, site: str = DECODER) -> int:
        return self.sites[site].shape[2] if site in self.sites else 0

    def offset(self, site: str = DECODER) -> int:
        return self.offsets.get(site, 0)
