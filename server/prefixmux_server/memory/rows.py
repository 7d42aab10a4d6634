"""RowLayout: each sequence is one contiguous row, its prefix copied in front at admission.

Rows are grouped into slabs by reserved length, in steps of 64, because the CPU's dense attention
reads a slab over its whole capacity. A prefix costs memory once per row here, not once per task.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from prefixmux_server.attention.rows import RowsPlan, SlabPlan, SlabRow
from prefixmux_server.memory.layout import Lease, Placement, Segment, SiteSpec, Span
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

    def fits(self, prefix_tokens: int, reserve: int) -> bool:
        return self._cap(prefix_tokens + reserve) <= self._capacity

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
        rows: dict[int, list[SlabRow]] = {}
        slabs: dict[int, Slab] = {}
        first = 0
        for span in spans:
            slab, row = self._where[span.lease]
            length = span.lease.prefix_tokens + span.start + span.count
            slabs[id(slab)] = slab
            rows.setdefault(id(slab), []).append(SlabRow(row, first, span.count, length))
            first += span.count
        return RowsPlan([SlabPlan(s.keys, s.values, rows[key]) for key, s in slabs.items()])

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
        live = sum(slab.cap * slab.live for slab in self._slabs)
        if live + tokens > self._capacity:
            return False
        if self._allocated() + tokens > self._capacity:
            self._slabs = [slab for slab in self._slabs if slab.live]
        while self._allocated() + tokens > self._capacity:
            max(self._slabs, key=lambda slab: slab.idle_tokens).shrink()
        return True
