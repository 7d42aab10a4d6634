"""RowLayout: each sequence is one contiguous row, its prefix copied in front at admission.

Rows are grouped into slabs by reserved length, in steps of 64, because the CPU's dense attention
reads a slab over its whole capacity. A prefix costs memory once per row here, not once per task.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prefixmux_server.attention.rows import RowsPlan, SlabPlan, SlabRow
from prefixmux_server.memory.layout import Lease, Placement, Read, Segment, SiteSpec, Span
from prefixmux_server.memory.prefix import PrefixKV
from prefixmux_server.memory.slab import Slab


class RowLayout:
    """Lives in host memory. `poison` fills what no live row owns with NaN (tests)."""

    shares_prefixes = False

    def __init__(
        self,
        spec: SiteSpec,
        capacity_tokens: int,
        dtype: torch.dtype,
        *,
        grain: int = 64,
        slab_rows: int = 16,
        poison: bool = False,
    ) -> None:
        self._spec = spec
        # A row takes whole grains, so what is left over below one is of no use.
        self._capacity = capacity_tokens // grain * grain
        self._dtype = dtype
        self._grain = grain
        self._slab_rows = slab_rows
        self._poison = poison
        self._slabs: list[Slab] = []
        self._where: dict[Lease, tuple[Slab, int]] = {}

    @property
    def capacity_tokens(self) -> int:
        return self._capacity

    @property
    def used_tokens(self) -> int:
        return sum(slab.cap * slab.live for slab in self._slabs)

    def fits(self, prefix_tokens: int, reserve: int, *, forks: int = 0, shared: int = 0) -> bool:
        return (1 + forks) * self._cap(prefix_tokens + reserve) <= self._capacity

    def place(self, kv: PrefixKV) -> Placement:
        return Placement(kv)

    def displace(self, placement: Placement) -> None:
        """Nothing to take away: rows hold copies."""

    def admit(self, segments: Sequence[Segment], reserve: int) -> Lease | None:
        lease = Lease(tuple(segments), reserve)
        slab = self._slab_for(self._cap(lease.prefix_tokens + reserve))
        if slab is None:
            return None
        self._where[lease] = (slab, slab.add(lease, self._spec.site))
        return lease

    def release(self, lease: Lease) -> None:
        slab, row = self._where.pop(lease)
        moved = slab.remove(row)
        if moved is not None:
            self._where[moved] = (slab, row)

    def rank(self, lease: Lease) -> tuple[int, int]:
        slab, row = self._where[lease]
        return id(slab), row

    def plan(self, spans: Sequence[Span]) -> RowsPlan:
        parts = _Parts(self._spec)
        first = 0
        for span in spans:
            slab, row = self._where[span.lease]
            tokens = range(first, first + span.count)
            positions = span.lease.positions if self._spec.positional else None
            parts.add(slab, SlabRow(row, tokens, tokens, span.end_cell, True, positions))
            first += span.count
        return parts.plan()

    def plan_reads(self, reads: Sequence[Read]) -> RowsPlan:
        parts = _Parts(self._spec)
        for read in reads:
            slab, row = self._where[read.lease]
            end = read.lease.prefix_tokens + read.lease.reserved
            parts.add(slab, SlabRow(row, read.queries, read.written, end, causal=False))
        return parts.plan()

    def fork(self, parent: Lease, shared: int) -> Lease | None:
        """Rows share no memory: `shared` is copied later."""
        return self.admit(parent.segments, parent.reserved)

    def copy(self, targets: Sequence[Lease], sources: Sequence[Lease], own: range) -> None:
        """Cells from the first to the last of them: what stands between is the same in both."""
        if not own:
            return
        moves = [(t, s) for t, s in zip(targets, sources, strict=True) if t is not s]
        cells = [slice(s.cell(own.start), s.cell(own.stop - 1) + 1) for _, s in moves]
        taken = [
            (slab.keys[:, row, :, cut].clone(), slab.values[:, row, :, cut].clone())
            for (slab, row), cut in zip((self._where[s] for _, s in moves), cells, strict=True)
        ]
        for (target, _), cut, (keys, values) in zip(moves, cells, taken, strict=True):
            slab, row = self._where[target]
            slab.keys[:, row, :, cut] = keys
            slab.values[:, row, :, cut] = values

    def add(self, lease: Lease, start: int, kv: Tensor) -> None:
        slab, row = self._where[lease]
        cells = slice(lease.cell(start), lease.cell(start) + kv.shape[2])
        slab.keys[:, row, :, cells] += kv[:, 0].transpose(1, 2)
        slab.values[:, row, :, cells] += kv[:, 1].transpose(1, 2)

    def read(self, lease: Lease) -> Tensor:
        slab, row = self._where[lease]
        cells = slice(lease.cell(0), lease.cell(0) + lease.reserved)
        both = (slab.keys[:, row, :, cells], slab.values[:, row, :, cells])
        return torch.stack([t.transpose(1, 2) for t in both], dim=1)

    def check_integrity(self) -> None:
        total = sum(slab.live for slab in self._slabs)
        assert total == len(self._where), "a row is lost or owned twice"
        for lease, (slab, row) in self._where.items():
            assert slab.leases[row] is lease, "a row belongs to another lease"
            end = lease.prefix_tokens + lease.reserved
            assert end <= slab.cap, "a row is too short"
            # Its own cells may be NaN, by a bad prefix: that harms nobody else. Padding may not.
            padding = (slab.keys[:, row, :, end:], slab.values[:, row, :, end:])
            assert not any(bool(t.any()) for t in padding), "a row's padding must stay zero"
        assert self._allocated() <= self._capacity, "more memory than allowed"

    def _cap(self, tokens: int) -> int:
        return -(-tokens // self._grain) * self._grain

    def _allocated(self) -> int:
        return sum(slab.cap * slab.touched for slab in self._slabs)

    def _slab_for(self, cap: int) -> Slab | None:
        """One with a free row of this length, whose memory is there or can be had."""
        slab = self._open_slab(cap)
        if slab is not None and slab.idle_tokens:
            return slab
        if not self._make_room(cap):
            return None
        return self._open_slab(cap) or self._new_slab(cap)

    def _open_slab(self, cap: int) -> Slab | None:
        """The fullest one that has a free row."""
        slabs = [slab for slab in self._slabs if slab.cap == cap and not slab.full]
        return max(slabs, key=lambda slab: slab.live, default=None)

    def _new_slab(self, cap: int) -> Slab:
        rows = min(self._slab_rows, self._capacity // cap)
        slab = Slab(self._spec, cap, rows, self._dtype, poison=self._poison)
        self._slabs.append(slab)
        return slab

    def _make_room(self, tokens: int) -> bool:
        """Take back what rows that ended have used, as far as needed; False: it is not enough."""
        if self.used_tokens + tokens > self._capacity:
            return False
        if self._allocated() + tokens > self._capacity:
            self._slabs = [slab for slab in self._slabs if slab.live]
        while self._allocated() + tokens > self._capacity:
            max(self._slabs, key=lambda slab: slab.idle_tokens).shrink()
        return True


class _Parts:
    """A step's rows, sorted into the slabs that they live in."""

    def __init__(self, spec: SiteSpec) -> None:
        self._rules = spec.rules
        self._rows: dict[int, tuple[Slab, list[SlabRow]]] = {}

    def add(self, slab: Slab, row: SlabRow) -> None:
        self._rows.setdefault(id(slab), (slab, []))[1].append(row)

    def plan(self) -> RowsPlan:
        found = self._rows.values()
        return RowsPlan([SlabPlan(s.keys, s.values, rows, self._rules) for s, rows in found])
