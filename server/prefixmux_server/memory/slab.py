"""A slab: a fixed number of equally long rows, dense in the front. Knows rows, not requests."""

from __future__ import annotations

import torch
from torch import Tensor

from prefixmux_server.memory.layout import Lease, SiteSpec


class Slab:
    """`keys [L, rows, H_kv, cap, D_k]` and `values`; rows `0 .. live` are owned, the rest is not.

    Attention reads the live rows as one dense operand, so the last row moves into every hole.
    Memory is the operating system's until a row is first used: only `touched` rows cost any.
    """

    def __init__(
        self, spec: SiteSpec, cap: int, rows: int, dtype: torch.dtype, *, poison: bool
    ) -> None:
        shape = (spec.layers, rows, spec.kv_heads, cap)
        self.cap = cap
        self.rows = rows
        self.touched = 0
        self.leases: list[Lease] = []
        self._keys = torch.empty(*shape, spec.k_dim, dtype=dtype)
        self._values = torch.empty(*shape, spec.v_dim, dtype=dtype)
        self._poison = poison
        self._wipe(0)

    @property
    def full(self) -> bool:
        return self.live == self.rows

    @property
    def live(self) -> int:
        return len(self.leases)

    @property
    def idle_tokens(self) -> int:
        """What `shrink` would give back."""
        return (self.touched - self.live) * self.cap

    @property
    def keys(self) -> Tensor:
        return self._keys[:, : self.live]

    @property
    def values(self) -> Tensor:
        return self._values[:, : self.live]

    def add(self, lease: Lease, site: str) -> int:
        """Own one more row: zeroed over its whole length, its segments copied to their places."""
        row = self.live
        self.touched = max(self.touched, row + 1)
        keys, values = self._keys[:, row], self._values[:, row]
        keys.zero_()
        values.zero_()
        cell = 0
        for segment, tokens in lease.parts():
            start, cell = cell, cell + len(tokens)
            if segment is not None and tokens:
                kv = segment.placement.kv.sites[site]
                keys[:, :, start:cell] = kv[:, 0].transpose(1, 2)
                values[:, :, start:cell] = kv[:, 1].transpose(1, 2)
        self.leases.append(lease)
        return row

    def remove(self, row: int) -> Lease | None:
        """Free a row; returns the lease that moved into it, if one did."""
        last = self.live - 1
        moved = self.leases.pop()
        if row != last:
            self._keys[:, row] = self._keys[:, last]
            self._values[:, row] = self._values[:, last]
            self.leases[row] = moved
        self._wipe(last)
        return moved if row != last else None

    def shrink(self) -> None:
        """Move the live rows to new memory and give back what rows that ended had used."""
        self._keys, self._values = _moved(self._keys, self.live), _moved(self._values, self.live)
        self.touched = self.live
        self._wipe(self.live)

    def _wipe(self, start: int) -> None:
        if self._poison:
            self._keys[:, start:] = float("nan")
            self._values[:, start:] = float("nan")


def _moved(rows: Tensor, live: int) -> Tensor:
    new = torch.empty_like(rows)
    new[:, :live] = rows[:, :live]
    return new
