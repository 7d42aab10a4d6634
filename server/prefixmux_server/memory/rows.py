"""RowLayout: each sequence has pages of its own, its prefix copied in front at admission.

Pages are taken as a row grows, from what was reserved for it, so that attention reads no more than
what is there. A prefix costs memory once per row here, not once per task.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prefixmux_server.attention.pages import PagedRow, PagesPlan
from prefixmux_server.memory.layout import Lease, Placement, Read, Segment, SiteSpec, Span
from prefixmux_server.memory.pages import Chain, PagePool
from prefixmux_server.memory.prefix import PrefixKV

PAGE = 64


class RowLayout:
    """Lives in host memory. `poison` fills what no live row owns with NaN (tests)."""

    shares_prefixes = False

    def __init__(
        self,
        spec: SiteSpec,
        capacity_tokens: int,
        dtype: torch.dtype,
        *,
        page: int = PAGE,
        poison: bool = False,
    ) -> None:
        self._spec = spec
        self._page = page
        self._pages = capacity_tokens // page
        self._pool = PagePool(spec, self._pages, page, dtype, poison=poison)
        self._chains: dict[Lease, Chain] = {}

    @property
    def capacity_tokens(self) -> int:
        """What is left over below one page is of no use."""
        return self._pages * self._page

    @property
    def used_tokens(self) -> int:
        return self._reserved * self._page

    def fits(self, prefix_tokens: int, reserve: int, *, forks: int = 0, shared: int = 0) -> bool:
        return (1 + forks) * self._pages_of(prefix_tokens + reserve) <= self._pages

    def place(self, kv: PrefixKV) -> Placement:
        return Placement(kv)

    def displace(self, placement: Placement) -> None:
        """Nothing to take away: rows hold copies."""

    def admit(self, segments: Sequence[Segment], reserve: int) -> Lease | None:
        lease = Lease(tuple(segments), reserve)
        most = self._pages_of(lease.prefix_tokens + reserve)
        if self._reserved + most > self._pages:
            return None
        self._chains[lease] = Chain(most)
        cell = 0
        for segment, tokens in lease.parts():
            start, cell = cell, cell + len(tokens)
            if segment is not None and tokens:
                kv = segment.placement.kv.sites[self._spec.site]
                self._pool.write(self._grown(lease, cell), start, kv)
        return lease

    def release(self, lease: Lease) -> None:
        self._pool.free(self._chains.pop(lease))

    def plan(self, spans: Sequence[Span]) -> PagesPlan:
        rows, first = [], 0
        for span in spans:
            pages = self._grown(span.lease, span.end_cell)
            tokens = range(first, first + span.count)
            positions = span.lease.positions if self._spec.positional else None
            rows.append(PagedRow(pages, tokens, tokens, span.end_cell, True, positions))
            first += span.count
        return self._plan(rows)

    def plan_reads(self, reads: Sequence[Read]) -> PagesPlan:
        rows = []
        for read in reads:
            end = read.lease.prefix_tokens + read.lease.reserved
            pages = self._grown(read.lease, end)
            rows.append(PagedRow(pages, read.queries, read.written, end, causal=False))
        return self._plan(rows)

    def fork(self, parent: Lease, shared: int) -> Lease | None:
        """Rows share no memory: `shared` is copied later."""
        return self.admit(parent.segments, parent.reserved)

    def copy(self, targets: Sequence[Lease], sources: Sequence[Lease], own: range) -> None:
        """Cells from the first to the last of them: what stands between is the same in both."""
        moves = [(t, s) for t, s in zip(targets, sources, strict=True) if t is not s]
        if not own or not moves:
            return
        lease = moves[0][0]
        cells = range(lease.cell(own.start), lease.cell(own.stop - 1) + 1)
        to = [self._grown(target, cells.stop) for target, _ in moves]
        away = [self._grown(source, cells.stop) for _, source in moves]
        self._pool.copy(to, away, cells)

    def add(self, lease: Lease, start: int, kv: Tensor) -> None:
        keys, values, at = self._own(lease, range(start, start + kv.shape[2]))
        keys[at] += kv[:, 0]
        values[at] += kv[:, 1]

    def read(self, lease: Lease) -> Tensor:
        keys, values, at = self._own(lease, range(lease.reserved))
        return torch.stack([keys[at], values[at]], dim=1)

    def check_integrity(self) -> None:
        self._pool.check_integrity()
        chains = self._chains.values()
        assert sum(len(chain.pages) for chain in chains) == self._pool.live, "a page is lost"
        assert self._reserved <= self._pages, "more memory than allowed"
        keys, values = self._by_cell()
        for lease, chain in self._chains.items():
            assert (
                len(chain.pages)
                <= chain.most
                == self._pages_of(lease.prefix_tokens + lease.reserved)
            ), "a row has more than it has reserved"
            # Its own cells may be NaN, by a bad prefix: that harms nobody else. Padding may not.
            end = lease.prefix_tokens + lease.reserved
            padding = range(end, max(end, len(chain.pages) * self._page))
            at = (slice(None), *self._pool.places(chain, padding))
            assert not any(bool(t[at].any()) for t in (keys, values)), "padding must stay zero"

    @property
    def _reserved(self) -> int:
        """Pages."""
        return sum(chain.most for chain in self._chains.values())

    def _pages_of(self, tokens: int) -> int:
        return -(-tokens // self._page)

    def _plan(self, rows: Sequence[PagedRow]) -> PagesPlan:
        return PagesPlan(self._pool.keys, self._pool.values, rows, self._spec.rules)

    def _grown(self, lease: Lease, cells: int) -> Sequence[int]:
        """Pages that hold so many cells of the row."""
        chain = self._chains[lease]
        self._pool.grow(chain, cells)
        return chain.pages[: self._pages_of(cells)]

    def _by_cell(self) -> tuple[Tensor, Tensor]:
        """Keys and values `[L, pages, page, H_kv, D]`."""
        return self._pool.keys.transpose(2, 3), self._pool.values.transpose(2, 3)

    def _own(self, lease: Lease, own: range) -> tuple[Tensor, Tensor, tuple[slice, Tensor, Tensor]]:
        """Keys and values by cell, and where in them these own tokens are: `[L, n, H_kv, D]`."""
        cells = [lease.cell(token) for token in own]
        self._grown(lease, cells[-1] + 1)
        at = (slice(None), *self._pool.places(self._chains[lease], cells))
        return *self._by_cell(), at
