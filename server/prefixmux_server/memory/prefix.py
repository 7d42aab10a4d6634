"""A prefix in host memory, ready to be seen by rows. Knows tensors, not files or names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

ENCODER = "encoder"
DECODER = "decoder"
CROSS = "cross"


@dataclass(frozen=True)
class PrefixKey:
    """Who a prefix is inside the engine: never a task name, so no rename can confuse two."""

    tenant: str
    digest: str


@dataclass(frozen=True)
class PrefixKV:
    """Keys and values per attention site, each `[L, 2, P, H_kv, D]` (0 keys, 1 values).

    `offsets` says per site by how many positions the tokens after it are shifted. An `infix`
    stands after the row's first tokens instead of before them.

    Some virtual tokens cannot be KV, because what they become depends on the row's own tokens:
    `embeddings` `[P, width]` or `token_ids` then run as inputs, in front of what an encoder reads,
    or after x as an infix, where `delta` `[L, 2, P, H_kv, D]` is added to what they leave behind.
    """

    key: PrefixKey
    sites: Mapping[str, Tensor]
    offsets: Mapping[str, int]
    infix: bool = False
    embeddings: Tensor | None = None
    token_ids: tuple[int, ...] = ()
    delta: Tensor | None = None

    @property
    def nbytes(self) -> int:
        tensors = [*self.sites.values(), self.embeddings, self.delta]
        return sum(t.numel() * t.element_size() for t in tensors if t is not None)

    @property
    def inputs(self) -> int:
        """Virtual tokens that run as inputs."""
        return len(self.token_ids) if self.embeddings is None else self.embeddings.shape[0]

    @property
    def size(self) -> int:
        """Virtual tokens, as users count them: of the longest site."""
        return max([self.inputs, *(kv.shape[2] for kv in self.sites.values())])

    def tokens(self, site: str = DECODER) -> int:
        return self.sites[site].shape[2] if site in self.sites else 0

    def offset(self, site: str = DECODER) -> int:
        return self.offsets.get(site, 0)
