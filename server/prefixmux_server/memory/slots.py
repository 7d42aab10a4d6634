"""SlotLayout: one pool, one token per slot; a prefix is stored once and shared by all its rows.

Slot 0 belongs to nobody: padding points at it, and it stays finite. Pages would have to cut or
copy prefixes, which have any length, so the page size is one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prefixmux_server.attention.gather import GatherPlan, TableRow
from prefixmux_server.memory.layout import Lease, Placement, Read, Segment, SiteSpec, Span
from prefixmux_server.memory.prefix import PrefixKV


@dataclass(eq=False)
class _Trunk:
    """Slots of own tokens that rows of one request begin with, and how many such rows live."""

    slots: Tensor
    rows: int = 1


class SlotLayout:
    """`poison` fills what nobody owns with NaN, so that any foreign read shows (tests)."""

    shares_prefixes = True

    def __init__(
        self,
        spec: SiteSpec,
        capacity_tokens: int,
        dtype: torch.dtype,
        device: torch.device,
        *,
        poison: bool = False,
    ) -> None:
        shape = (spec.layers, capacity_tokens + 1, spec.kv_heads)
        self._keys = torch.zeros(*shape, spec.k_dim, dtype=dtype, device=device)
        self._values = torch.zeros(*shape, spec.v_dim, dtype=dtype, device=device)
        self._spec = spec
        self._capacity = capacity_tokens
        self._poison = poison
        self._free = list(range(capacity_tokens, 0, -1))
        # By lease: the slots it alone owns, those it shares, if any, those of all its own tokens,
        # and those of all that it sees.
        self._owned: dict[Lease, Tensor] = {}
        self._trunks: dict[Lease, _Trunk] = {}
        self._cells: dict[Lease, Tensor] = {}
        self._tables: dict[Lease, Tensor] = {}
        self._placed: dict[int, Placement] = {}
        self._wipe(torch.arange(1, capacity_tokens + 1))

    @property
    def capacity_tokens(self) -> int:
        return self._capacity

    @property
    def used_tokens(self) -> int:
        return self._capacity - len(self._free)

    def fits(self, prefix_tokens: int, reserve: int, *, forks: int = 0, shared: int = 0) -> bool:
        return prefix_tokens + reserve + forks * (reserve - shared) <= self._capacity

    def place(self, kv: PrefixKV) -> Placement | None:
        slots = self._allocate(kv.tokens(self._spec.site))
        if slots is None:
            return None
        if len(slots):
            tensor = kv.sites[self._spec.site].to(self._keys.device, non_blocking=True)
            self._keys.index_copy_(1, slots, tensor[:, 0])
            self._values.index_copy_(1, slots, tensor[:, 1])
        placement = Placement(kv, slots)
        self._placed[id(placement)] = placement
        return placement

    def displace(self, placement: Placement) -> None:
        if self._placed.pop(id(placement), None) is None or placement.slots is None:
            raise ValueError("this prefix is not placed here")
        self._give_back(placement.slots)

    def admit(self, segments: Sequence[Segment], reserve: int) -> Lease | None:
        own = self._allocate(reserve)
        if own is None:
            return None
        lease = Lease(tuple(segments), reserve)
        self._hold(lease, own, own)
        return lease

    def fork(self, parent: Lease, shared: int) -> Lease | None:
        """The shared tokens stay where they are, until the last of the rows is released."""
        fresh = self._allocate(parent.reserved - shared)
        if fresh is None:
            return None
        trunk = self._trunk(parent, shared)
        assert len(trunk.slots) == shared, "forks of a row share as many tokens"
        lease = Lease(parent.segments, parent.reserved)
        trunk.rows += 1
        self._trunks[lease] = trunk
        self._hold(lease, fresh, torch.cat([trunk.slots, fresh]))
        return lease

    def release(self, lease: Lease) -> None:
        self._give_back(self._owned.pop(lease))
        trunk = self._trunks.pop(lease, None)
        if trunk is not None:
            trunk.rows -= 1
            if not trunk.rows:
                self._give_back(trunk.slots)
        del self._cells[lease], self._tables[lease]

    def plan(self, spans: Sequence[Span]) -> GatherPlan:
        rows, first = [], 0
        for span in spans:
            tokens = range(first, first + span.count)
            slots = self._tables[span.lease][: span.end_cell]
            positions = span.lease.positions[: span.end_cell] if self._spec.positional else None
            rows.append(TableRow(tokens, tokens, slots, True, positions))
            first += span.count
        return GatherPlan(self._keys, self._values, rows, self._spec.rules)

    def plan_reads(self, reads: Sequence[Read]) -> GatherPlan:
        rows = [TableRow(r.queries, r.written, self._tables[r.lease], causal=False) for r in reads]
        return GatherPlan(self._keys, self._values, rows, self._spec.rules)

    def copy(self, targets: Sequence[Lease], sources: Sequence[Lease], own: range) -> None:
        """What both have in the same slots stays where it is."""
        if not own or not targets:
            return
        to = torch.cat([self._cells[lease][own.start : own.stop] for lease in targets])
        away = torch.cat([self._cells[lease][own.start : own.stop] for lease in sources])
        moved = to != away
        to, away = to[moved], away[moved]
        self._keys[:, to] = self._keys[:, away]
        self._values[:, to] = self._values[:, away]

    def add(self, lease: Lease, start: int, kv: Tensor) -> None:
        slots = self._cells[lease][start : start + kv.shape[2]]
        kv = kv.to(self._keys.device)
        self._keys[:, slots] += kv[:, 0]
        self._values[:, slots] += kv[:, 1]

    def read(self, lease: Lease) -> Tensor:
        slots = self._cells[lease]
        return torch.stack([self._keys[:, slots], self._values[:, slots]], dim=1)

    def check_integrity(self) -> None:
        trunks = Counter(self._trunks.values())
        assert all(trunk.rows == rows for trunk, rows in trunks.items()), "a shared row is lost"
        shared = [trunk.slots for trunk in trunks]
        owned = [*self._owned.values(), *shared, *(p.slots for p in self._placed.values())]
        free = torch.tensor(self._free, dtype=torch.long)
        cells = torch.cat([free, *(slots.cpu() for slots in owned if slots is not None)])
        expected = torch.arange(1, self._capacity + 1)
        assert torch.equal(cells.sort().values, expected), "slots lost or owned twice"
        placed = {id(p) for p in self._placed.values()}
        for lease in self._owned:
            assert all(id(s.placement) in placed for s in lease.segments), "a lease lost its prefix"
        assert bool(self._keys[:, 0].isfinite().all()), "the trash slot must stay finite"

    def _trunk(self, parent: Lease, shared: int) -> _Trunk:
        """What the forks of `parent` share with it, which is the same for all of them."""
        if parent not in self._trunks:
            cells = self._cells[parent]
            self._trunks[parent] = _Trunk(cells[:shared])
            self._owned[parent] = cells[shared:]
        return self._trunks[parent]

    def _hold(self, lease: Lease, owned: Tensor, cells: Tensor) -> None:
        self._owned[lease], self._cells[lease] = owned, cells
        parts = [owned.new_empty(0)]
        for segment, tokens in lease.parts():
            slots = cells if segment is None else segment.placement.slots
            if slots is not None:
                parts.append(slots[tokens.start : tokens.stop])
        self._tables[lease] = torch.cat(parts)

    def _allocate(self, tokens: int) -> Tensor | None:
        if tokens > len(self._free):
            return None
        cut = len(self._free) - tokens
        slots, self._free = self._free[cut:], self._free[:cut]
        return torch.tensor(slots, dtype=torch.long, device=self._keys.device)

    def _give_back(self, slots: Tensor) -> None:
        self._free.extend(slots.tolist())
        self._wipe(slots)

    def _wipe(self, slots: Tensor) -> None:
        if self._poison:
            index = slots.to(self._keys.device)
            self._keys.index_fill_(1, index, float("nan"))
            self._values.index_fill_(1, index, float("nan"))
