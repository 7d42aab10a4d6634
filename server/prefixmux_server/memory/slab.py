"""A slab: a fixed number of equally long rows, dense in the front. Knows rows, not requests."""

from __future__ import annotations

import torch
from torch import Tensor

from prefixmux_server.memory.layout import Lease, SiteSpec


class Slab:
    """`keys [L, rows, H_kv, cap, D_k]` and `values`; rows `0 .. live` are owned, the rest is not.

    Attention reads the live rows as one dense operand, so the last row moves into every hole.
    """

    def __init__(
        self, spec: SiteSpec, cap: int, rows: int, dtype: torch.dtype, *, poison: bool
    ) -> None:
        shape = (spec.layers, rows, spec.kv_heads, cap)
        self.cap = cap
        self.rows = rows
        self.leases: list[Lease] = []
        self._keys = torch.empty(*shape, spec.k_dim, dtype=dtype)
        self._values = torch.empty(*shape, spec.v_dim, dtype=dtype)
        self._poison = poison
        self._wipe(0)

    @property
    def full(self) -> bool:
        return len(self.leases) == self.rows

    @property
    def keys(self) -> Tensor:
        return self._keys[:, : len(self.leases)]

    @property
    def values(self) -> Tensor:
        return self._values[:, : len(self.leases)]

    def add(self, lease: Lease, site: str) -> int:
        """Own one more row: zeroed over its whole length, its segments copied in front."""
        row = len(self.leases)
        keys, values = self._keys[:, row], self._values[:, row]
        keys.zero_()
        values.zero_()
        end = 0
        for segment in lease.segments:
            start, end = end, end + segment.tokens
            if segment.tokens:
                kv = segment.placement.kv.sites[site]
                keys[:, :, start:end] = kv[:, 0].transpose(1, 2)
                values[:, :, start:end] = kv[:, 1].transpose(1, 2)
        self.leases.append(lease)
        return row

    def remove(self, row: int) -> Lease | None:
        """Free a row; returns the lease that moved into it, if one did."""
        last = len(self.leases) - 1
        moved = self.leases.pop()
        if row != last:
            self._keys[:, row] = self._keys[:, last]
            self._values[:, row] = self._values[:, last]
            self.leases[row] = moved
        self._wipe(last)
        return moved if row != last else None

    def _wipe(self, start: int) -> None:
        if self._poison:
            self._keys[:, start:] = float("nan")
            self._values[:, start:] = float("nan")
