"""How rows own KV memory: segments, leases, and the protocol that every layout answers.

A row's sequence at a site is an ordered list of segments: leased immutable ones (its prefixes)
and then its own tokens. Whoever holds a lease knows token counts only, never slots or pages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from prefixmux_server.attention.base import StepPlan
from prefixmux_server.attention.rules import OUTSIDE, PLAIN, ScoreRules
from prefixmux_server.memory.prefix import DECODER, PrefixKey, PrefixKV


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

    @property
    def positional(self) -> bool:
        """Whether what a query sees of a key depends on their positions."""
        return any(rule.positional for rule in self.rules)

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
    """A prefix as one row sees it at one site. Immutable: the row reads it, and never writes to it.

    `at` own tokens of the row come before it: none before a prefix, x before an infix.
    """

    placement: Placement
    at: int = 0
    site: str = DECODER

    @property
    def key(self) -> PrefixKey:
        return self.placement.kv.key

    @property
    def tokens(self) -> int:
        return self.placement.kv.tokens(self.site)

    @property
    def position_offset(self) -> int:
        return self.placement.kv.offset(self.site)


@dataclass(frozen=True, eq=False)
class Lease:
    """A row's right to its segments and to `reserved` tokens of its own.

    The row's cells follow each other as its queries may see them: each segment before the own
    token `at`, segments of one place in their order.
    """

    segments: tuple[Segment, ...]
    reserved: int

    @property
    def prefix_tokens(self) -> int:
        return sum(segment.tokens for segment in self.segments)

    def cell(self, own: int) -> int:
        """The cell of own token `own`, counted from the row's first."""
        return own + sum(segment.tokens for segment in self.segments if segment.at <= own)

    def position(self, own: int) -> int:
        """The position of own token `own`."""
        return own + sum(s.position_offset for s in self.segments if s.at <= own)

    def parts(self) -> Iterator[tuple[Segment | None, range]]:
        """The row from its first cell on: its segments, and between them its own tokens (None)."""
        done = 0
        for segment in sorted(self.segments, key=lambda segment: segment.at):
            if segment.at > done:
                yield None, range(done, segment.at)
                done = segment.at
            yield segment, range(segment.tokens)
        if self.reserved > done:
            yield None, range(done, self.reserved)

    @cached_property
    def positions(self) -> Tensor:
        """Of every cell `[prefix_tokens + reserved]`; `OUTSIDE` for segments that have none.

        A segment that shifts what comes after it stands where it has made room.
        """
        found: list[Tensor] = [torch.empty(0, dtype=torch.long)]
        shift = 0
        for segment, own in self.parts():
            if segment is None:
                found.append(torch.arange(own.start + shift, own.stop + shift))
            elif segment.position_offset:
                start = segment.at + shift
                found.append(torch.arange(start, start + segment.tokens))
                shift += segment.position_offset
            else:
                found.append(torch.full((segment.tokens,), OUTSIDE))
        return torch.cat(found)


@dataclass(frozen=True)
class Span:
    """Own tokens `start .. start + count` of a leased row, to be run in one step.

    They are within what the lease reserves, else ValueError: the cells beyond are others'. No
    segment stands between them, else ValueError: those before it must not see it.
    """

    lease: Lease
    start: int
    count: int

    def __post_init__(self) -> None:
        end = self.start + self.count
        if not 0 <= self.start < end <= self.lease.reserved:
            raise ValueError("a row may run only the tokens that are reserved for it")
        if any(self.start < segment.at < end for segment in self.lease.segments):
            raise ValueError("a row's tokens before and after an infix run in different steps")

    @property
    def end_cell(self) -> int:
        """Cells that the last of them sees."""
        return self.lease.cell(self.start + self.count - 1) + 1


@dataclass(frozen=True)
class Read:
    """A leased row as seen by queries that leave nothing in it, such as cross attention's.

    `queries` are tokens of the ragged batch; each sees the whole row. In the step that fills it,
    all its own tokens stand at `written` of what is stored in the step.
    """

    lease: Lease
    queries: Sequence[int]
    written: range = range(0)


class KVLayout(Protocol):
    """Memory for the KV of all rows at one site."""

    @property
    def capacity_tokens(self) -> int:
        """Tokens that fit when nothing is lost to rounding."""
        ...

    @property
    def used_tokens(self) -> int:
        """Tokens that are taken: by rows, for all that they reserve, and by placed prefixes."""
        ...

    @property
    def shares_prefixes(self) -> bool:
        """Whether rows see one stored prefix in place, instead of each holding a copy."""
        ...

    def fits(self, prefix_tokens: int, reserve: int, *, forks: int = 0, shared: int = 0) -> bool:
        """Whether such a row, and `forks` of it that have `shared` tokens in common with it, fit
        into the empty memory: if not, they never will."""
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

    def plan(self, spans: Sequence[Span]) -> StepPlan:
        """The attention of one step; spans in the order of the ragged batch."""
        ...

    def plan_reads(self, reads: Sequence[Read]) -> StepPlan:
        """The same, of rows that are written once and then only read."""
        ...

    def fork(self, parent: Lease, shared: int) -> Lease | None:
        """A row like `parent`, whose first `shared` own tokens it will have; None: no room now.

        It has them after `copy`, which does nothing where rows can share memory. All forks of a
        row share as many; they and it are released in any order.
        """
        ...

    def copy(self, targets: Sequence[Lease], sources: Sequence[Lease], own: range) -> None:
        """Own tokens `own` of each target become those of its source, as they were before. All
        are rows of one request."""
        ...

    def add(self, lease: Lease, start: int, kv: Tensor) -> None:
        """Add `kv` `[L, 2, n, H_kv, D]` to the KV of own tokens from `start` on. What rows have in
        common is added to before they part: afterwards it may be one or many."""
        ...

    def read(self, lease: Lease) -> Tensor:
        """The KV of all own tokens of a row without an infix, `[L, 2, reserved, H_kv, D]`."""
        ...

    def check_integrity(self) -> None:
        """Raise AssertionError if any cell is owned twice, lost, or owned by nobody alive."""
        ...
