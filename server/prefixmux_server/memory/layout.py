"""How rows own KV memory: segments, leases, and the protocol that every layout answers.

A row's sequence at a site is an ordered list of segments: leased immutable ones (its prefixes)
and then its own tokens. Whoever holds a lease knows token counts only, never slots or slabs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from prefixmux_server.attention.base import StepPlan
from prefixmux_server.attention.rules import PLAIN, ScoreRules
from prefixmux_server.memory.prefix import PrefixKey, PrefixKV


@dataclass(frozen=True)
class SiteSpec:
    """One attention site of the model: what a layout must store per token and layer.

    `rules` are per layer; none given means that every layer is plain.
    """

    site: str
    layers: int
    heads: int
    kv_heads: int
    k_dim: int
    v_dim: int
    rules: tuple[ScoreRules, ...] = ()

    def rule(self, layer: int) -> ScoreRules:
        return self.rules[layer] if self.rules else PLAIN

    def bytes_per_token(self, dtype: torch.dtype) -> int:
        return self.layers * self.kv_heads * (self.k_dim + self.v_dim) * dtype.itemsize


@dataclass(frozen=True)
class Placement:
    """An immutable prefix where rows of one layout can see it.

    `slots` are the pool's cells that hold it; empty in a layout that copies prefixes into rows.
    """

    kv: PrefixKV
    slots: Tensor | None = None


@dataclass(frozen=True)
class Segment:
    """A prefix as one row sees it. Immutable: the row reads it, and never writes to it."""

    placement: Placement

    @property
    def key(self) -> PrefixKey:
        return self.placement.kv.key

    @property
    def tokens(self) -> int:
        return self.placement.kv.tokens()

    @property
    def position_offset(self) -> int:
        return self.placement.kv.offset()


@dataclass(frozen=True, eq=False)
class Lease:
    """A row's right to its segments and to `reserved` tokens of its own."""

    segments: tuple[Segment, ...]
    reserved: int

    @property
    def prefix_tokens(self) -> int:
        return sum(segment.tokens for segment in self.segments)

    @property
    def position_offset(self) -> int:
        """Position of the row's own token 0."""
        return sum(segment.position_offset for segment in self.segments)


@dataclass(frozen=True)
class Span:
    """Own tokens `start .. start + count` of a leased row, to be run in one step.

    They are within what the lease reserves, else ValueError: the cells beyond are others'.
    """

    lease: Lease
    start: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.start + self.count <= self.lease.reserved:
            raise ValueError("a row may run only the tokens that are reserved for it")


class KVLayout(Protocol):
    """Memory for the KV of all rows at one site."""

    @property
    def capacity_tokens(self) -> int:
        """Tokens that fit when nothing is lost to rounding."""
        ...

    @property
    def shares_prefixes(self) -> bool:
        """Whether rows see one stored prefix in place, instead of each holding a copy."""
        ...

    def fits(self, prefix_tokens: int, reserve: int) -> bool:
        """Whether such a row fits into the empty memory: if not, it never will."""
        ...

    def place(self, kv: PrefixKV) -> Placement | None:
        """Make a prefix visible to rows; None when there is no room now."""
        ...

    def displace(self, placement: Placement) -> None:
        """Take a placed prefix away; no live lease may hold it."""
        ...

    def admit(self, segments: Sequence[Segment], reserve: int) -> Lease | None:
        """A row behind these segments with room for `reserve` own tokens; None: no room now."""
        ...

    def release(self, lease: Lease) -> None:
        """Give the row's own memory back. The segments' placements stay."""
        ...

    def rank(self, lease: Lease) -> tuple[int, int]:
        """Rows in this order stand in the batch as they do in memory: the plan copies least."""
        ...

    def plan(self, spans: Sequence[Span]) -> StepPlan:
        """The attention of one step; spans in the order of the ragged batch."""
        ...

    def check_integrity(self) -> None:
        """Raise AssertionError if any cell is owned twice, lost, or owned by nobody alive."""
        ...
