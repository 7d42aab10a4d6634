"""Both layouts: what is admitted is there, what is released is free, whatever the order.

Contents are read through attention itself: whatever a step gives must be what the formula gives
over the row's own prefixes and tokens. All that nobody owns is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.eager import eager
from support.tiny import LAYOUTS
from torch import Tensor

from prefixmux_server.memory.layout import KVLayout, Lease, Placement, Segment, SiteSpec, Span
from prefixmux_server.memory.prefix import DECODER, PrefixKey, PrefixKV
from prefixmux_server.memory.select import LayoutName, make_layout

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


class LayoutMachine(RuleBasedStateMachine):
    """Admits, runs, releases and displaces in any order; a subclass names the layout."""

    name: LayoutName

    def __init__(self) -> None:
        super().__init__()
        self.layout = layout_of(self.name)
        self.steps = Steps(self.layout)
        self.placed: list[Placement] = []
        self.rows: list[Row] = []
        self.made = 0

    @rule(tokens=st.sampled_from([1, 2, 7, 30, 64, 100]))
    def place(self, tokens: int) -> None:
        self.made += 1
        placement = self.layout.place(prefix_of(tokens, self.made))
        if placement is None:
            assert self.layout.shares_prefixes
            assert tokens > self._free_slots()
        else:
            self.placed.append(placement)

    @precondition(lambda self: self._idle())
    @rule(data=st.data())
    def displace(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(self._idle()))
        self.placed = [placement for placement in self.placed if placement is not gone]
        self.layout.displace(gone)

    @rule(data=st.data(), reserve=st.sampled_from([1, 2, 20, 63, 64, 65, 130, 448]))
    def admit(self, data: st.DataObject, reserve: int) -> None:
        chosen = st.lists(st.sampled_from(self.placed), max_size=3) if self.placed else st.just([])
        segments = [Segment(placement) for placement in data.draw(chosen)]
        lease = self.layout.admit(segments, reserve)
        if lease is not None:
            self.rows.append(row_of(lease))
        elif self.layout.shares_prefixes:
            assert reserve > self._free_slots()
        else:
            assert self.rows or not self.layout.fits(
                sum(segment.tokens for segment in segments), reserve
            )

    @precondition(lambda self: any(row.left for row in self.rows))
    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        able = [row for row in self.rows if row.left]
        order = data.draw(st.permutations(able))
        chosen = order[: data.draw(st.integers(1, len(order)))]
        counts = [1 if data.draw(st.booleans()) else min(row.left, 17) for row in chosen]
        self.steps.run(list(zip(chosen, counts, strict=True)))

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        row = self.rows.pop(data.draw(st.integers(0, len(self.rows) - 1)))
        self.layout.release(row.lease)

    @invariant()
    def holds(self) -> None:
        self.layout.check_integrity()

    def teardown(self) -> None:
        for row in self.rows:
            self.layout.release(row.lease)
        for placement in self.placed:
            self.layout.displace(placement)
        self.layout.check_integrity()
        whole = self.layout.admit([], CAPACITY)
        assert whole is not None, "something was not given back"
        self.steps.run([(row_of(whole), 3)])

    def _idle(self) -> list[Placement]:
        used = [id(s.placement) for row in self.rows for s in row.lease.segments]
        return [placement for placement in self.placed if id(placement) not in used]

    def _free_slots(self) -> int:
        stored = sum(placement.kv.tokens() for placement in self.placed)
        return CAPACITY - stored - sum(row.lease.reserved for row in self.rows)


@pytest.fixture(params=LAYOUTS)
def name(request: pytest.FixtureRequest) -> LayoutName:
    chosen: LayoutName = request.param
    return chosen


def run_machine(name: LayoutName, examples: int) -> None:
    machine = type("Machine", (LayoutMachine,), {"name": name})
    limits = settings(max_examples=examples, stateful_step_count=30, deadline=None)
    run_state_machine_as_test(machine, settings=limits)


def test_any_order_of_things(name: LayoutName) -> None:
    run_machine(name, 40)


@pytest.mark.long
def test_any_order_of_things_for_longer(name: LayoutName) -> None:
    run_machine(name, 1500)


def test_a_row_moves_into_the_hole_that_another_leaves(name: LayoutName) -> None:
    """Rows that stay see the same after every release, in every order of leaving."""
    for leaving in ([0, 0, 0], [2, 1, 0], [1, 1, 0], [0, 1, 0]):
        layout = layout_of(name)
        steps = Steps(layout)
        rows = [row_of(lease) for n in range(4) if (lease := layout.admit([], 20 + n))]
        steps.run([(row, 3) for row in rows])
        for index in leaving:
            layout.release(rows.pop(index).lease)
            layout.check_integrity()
            steps.run([(row, 2) for row in rows])


def test_rows_of_several_lengths_in_one_step(name: LayoutName) -> None:
    layout = layout_of(name, 4096)
    held = [segment(layout, tokens, tokens) for tokens in (1, 40, 130)]
    chains = [[], held[:1], held[1:2], held[2:], [held[2], held[0]], [held[0], held[0]]]
    rows = [row_of(lease) for c in chains for n in (1, 70) if (lease := layout.admit(c, n))]
    assert len(rows) == 12
    steps = Steps(layout)
    steps.run([(row, 1) for row in rows])
    steps.run([(row, 1 + n) for n, row in enumerate(rows) if row.left])


def test_one_cell_is_the_smallest_row(name: LayoutName) -> None:
    layout = layout_of(name, 64)
    lease = layout.admit([], 1)
    assert lease is not None
    Steps(layout).run([(row_of(lease), 1)])


def test_fits_is_what_the_empty_memory_holds(name: LayoutName) -> None:
    for capacity in (1, 63, 64, 65, 200):
        for reserve in (1, 63, 64, 65, 128, 192, 200, 201):
            layout = layout_of(name, capacity)
            assert layout.fits(0, reserve) == (layout.admit([], reserve) is not None)
            assert layout.fits(reserve, 10) == layout.fits(0, reserve + 10)


def test_memory_of_one_length_is_lent_to_another(name: LayoutName) -> None:
    """Empty slabs give way: no length can hold memory that it does not use."""
    layout = layout_of(name, 512)
    for reserve in (64, 512, 1, 256, 64, 512):
        leases = []
        while (lease := layout.admit([], reserve)) is not None:
            leases.append(lease)
        assert leases
        layout.check_integrity()
        for lease in leases:
            layout.release(lease)


def test_nothing_is_given_back_twice(name: LayoutName) -> None:
    layout = layout_of(name)
    lease = layout.admit([], 10)
    assert lease is not None
    layout.release(lease)
    with pytest.raises(KeyError):
        layout.release(lease)
    layout.check_integrity()


def test_a_prefix_is_displaced_once() -> None:
    layout = layout_of("slots")
    placement = layout.place(prefix_of(5, 1))
    assert placement is not None
    layout.displace(placement)
    with pytest.raises(ValueError, match="not placed"):
        layout.displace(placement)
    layout.check_integrity()


@pytest.mark.parametrize(("start", "count"), [(0, 6), (4, 2), (5, 1), (0, 40)])
def test_a_row_never_runs_beyond_its_reservation(name: LayoutName, start: int, count: int) -> None:
    """It would write to cells of its prefix, which others share, or of nobody."""
    layout = layout_of(name)
    lease = layout.admit([segment(layout, 40, 1)], 5)
    assert lease is not None
    with pytest.raises(ValueError, match="reserved"):
        layout.plan([Span(lease, start, count)])
