"""Both layouts in any order of things: contents right, nothing lost, nothing owned twice."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.rows import CAPACITY, Row, Steps, layout_of, prefix_of, row_of

from prefixmux_server.memory.layout import Placement, Segment
from prefixmux_server.memory.select import LayoutName


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


def run_machine(name: LayoutName, examples: int) -> None:
    machine = type("Machine", (LayoutMachine,), {"name": name})
    limits = settings(max_examples=examples, stateful_step_count=30, deadline=None)
    run_state_machine_as_test(machine, settings=limits)


def test_any_order_of_things(name: LayoutName) -> None:
    run_machine(name, 40)


@pytest.mark.long
def test_any_order_of_things_for_longer(name: LayoutName) -> None:
    run_machine(name, 1500)
