"""Rows of a layout, run step by step and compared with the formula."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from prefixmux_server.memory.layout import KVLayout, Lease, Segment, SiteSpec, Span
from prefixmux_server.memory.prefix import DECODER, PrefixKey, PrefixKV
from prefixmux_server.memory.select import LayoutName, make_layout
from support.eager import eager

SPEC = SiteSpec(DECODER, layers=2, heads=4, kv_heads=2, k_dim=8, v_dim=8)
CAPACITY = 448
SCALING = 0.4


def layout_of(name: LayoutName, capacity: int = CAPACITY) -> KVLayout:
    return make_layout(name, SPEC, capacity, torch.float32, torch.device("cpu"), poison=True)


def prefix_of(tokens: int, seed: int) -> PrefixKV:
    generator = torch.Generator().manual_seed(seed)
    kv = torch.randn(SPEC.layers, 2, tokens, SPEC.kv_heads, SPEC.k_dim, generator=generator)
    return PrefixKV(PrefixKey("t", f"{seed}"), {DECODER: kv}, {DECODER: tokens})


def segment(layout: KVLayout, tokens: int, seed: int) -> Segment:
    placement = layout.place(prefix_of(tokens, seed))
    assert placement is not None
    return Segment(placement)


@dataclass
class Row:
    """A leased row and all that it should see: `[L, tokens so far, H_kv, D]`."""

    lease: Lease
    keys: Tensor
    values: Tensor
    computed: int = 0

    @property
    def left(self) -> int:
        return self.lease.reserved - self.computed


def row_of(lease: Lease) -> Row:
    parts = [segment.placement.kv.sites[DECODER] for segment in lease.segments]
    none = torch.zeros(SPEC.layers, 2, 0, SPEC.kv_heads, SPEC.k_dim)
    joined = torch.cat([none, *parts], dim=2)
    return Row(lease, joined[:, 0], joined[:, 1])


@dataclass
class Steps:
    """Runs steps over rows and compares each with the formula."""

    layout: KVLayout
    generator: torch.Generator = field(default_factory=torch.Generator)

    def run(self, work: list[tuple[Row, int]]) -> None:
        plan = self.layout.plan([Span(row.lease, row.computed, count) for row, count in work])
        total = sum(count for _, count in work)
        fresh = [self._draw(SPEC.layers, total, heads) for heads in (4, 2, 2)]
        query, key, value = fresh
        for layer in range(SPEC.layers):
            found = plan.attend(
                layer,
                query[layer].transpose(0, 1),
                key[layer].transpose(0, 1),
                value[layer].transpose(0, 1),
                SCALING,
            )
            self._compare(layer, work, query[layer], key[layer], value[layer], found)
        self._commit(work, key, value)

    def _draw(self, layers: int, tokens: int, heads: int) -> Tensor:
        return torch.randn(layers, tokens, heads, SPEC.k_dim, generator=self.generator)

    def _compare(
        self,
        layer: int,
        work: list[tuple[Row, int]],
        query: Tensor,
        key: Tensor,
        value: Tensor,
        found: Tensor,
    ) -> None:
        first = 0
        for row, count in work:
            own = slice(first, first + count)
            first += count
            keys = torch.cat([row.keys[layer], key[own]])
            values = torch.cat([row.values[layer], value[own]])
            wanted = eager(query[own].transpose(0, 1), keys, values, SCALING)
            torch.testing.assert_close(found[own].double(), wanted, atol=2e-5, rtol=2e-5)

    def _commit(self, work: list[tuple[Row, int]], key: Tensor, value: Tensor) -> None:
        first = 0
        for row, count in work:
            own = slice(first, first + count)
            first += count
            row.keys = torch.cat([row.keys, key[:, own]], dim=1)
            row.values = torch.cat([row.values, value[:, own]], dim=1)
            row.computed += count
