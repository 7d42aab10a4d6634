"""Memory of three sites in any order of things: contents right, nothing lost, nothing owned
twice."""

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
from memory.groups import Group, memory_of, prefix_of
from memory.played import Steps

from prefixmux_server.memory.memory import PlacedPrefix, RowNeeds
from prefixmux_server.memory.prefix import CROSS, DECODER
from prefixmux_server.memory.select import LayoutName

ROOM = {DECODER: 448, CROSS: 256}
KINDS = (
    {"decoder": 1},
    {"decoder": 30},
    {"decoder": 64, "cross": 1},
    {"decoder": 7, "cross": 60, "encoder": 2},
    {"cross": 5},
    {"encoder": 3},
)


class MemoryMachine(RuleBasedStateMachine):
    """Admits, runs, branches, releases and displaces in any order; a subclass names the layout."""

    name: LayoutName

    def __init__(self) -> None:
        super().__init__()
        self.memory = memory_of(self.name, ROOM[DECODER], ROOM[CROSS])
        self.steps = Steps(self.memory)
        self.placed: list[PlacedPrefix] = []
        self.groups: list[Group] = []
        self.made = 0

    @rule(kind=st.sampled_from(KINDS), shifts=st.booleans(), infix=st.sampled_from([False, True]))
    def place(self, kind: dict[str, int], shifts: bool, infix: bool) -> None:
        self.made += 1
        kv = prefix_of(self.made, shifts=shifts, infix=infix, **kind)
        found = self.memory.place(kv)
        if found is None:
            assert self.memory.shares_prefixes
            assert any(kv.tokens(site) > self._free(site) for site in ROOM)
        else:
            self.placed.append(found)

    @precondition(lambda self: self._idle())
    @rule(data=st.data())
    def displace(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(self._idle()))
        self.placed = [prefix for prefix in self.placed if prefix is not gone]
        self.memory.displace(gone)

    @rule(
        data=st.data(),
        own=st.sampled_from([3, 4, 20, 63, 64, 65, 130]),
        rows=st.sampled_from([1, 1, 1, 2, 4]),
        encoded=st.sampled_from([1, 2, 9, 64, 65]),
    )
    def admit(self, data: st.DataObject, own: int, rows: int, encoded: int) -> None:
        chosen = st.lists(st.sampled_from(self.placed), max_size=3) if self.placed else st.just([])
        prefixes = data.draw(chosen)
        at = data.draw(st.integers(1, 2)) if any(p.kv.infix for p in prefixes) else 0
        shared = data.draw(st.integers(at + 1, own)) if rows > 1 else 0
        needs = RowNeeds(own, at, encoded, rows, shared)
        group = self.steps.admit(prefixes, needs)
        if group is not None:
            self.groups.append(group)
        elif self.memory.shares_prefixes:
            mine = own + (rows - 1) * (own - shared)
            assert mine > self._free(DECODER) or encoded > self._free(CROSS)
        else:
            assert self.groups or not self.memory.fits([p.kv for p in prefixes], needs)

    @precondition(lambda self: any(group.runnable for group in self.groups))
    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        able = [group for group in self.groups if group.runnable]
        order = data.draw(st.permutations(able))
        chosen = order[: data.draw(st.integers(1, len(order)))]
        counts = [1 if data.draw(st.booleans()) else min(g.runnable, 9) for g in chosen]
        self.steps.run(*zip(chosen, counts, strict=True))
        for group in chosen:
            if group.branches and group.runnable:
                parent = st.integers(0, len(group.rows) - 1)
                parents = st.lists(parent, min_size=1, max_size=group.needs.rows)
                self.steps.branch(group, data.draw(parents))

    @precondition(lambda self: self._started())
    @rule(data=st.data())
    def add(self, data: st.DataObject) -> None:
        group = data.draw(st.sampled_from(self._started()))
        start = data.draw(st.integers(0, group.rows[0].computed - 1))
        self.steps.add(group, start, data.draw(st.integers(1, group.rows[0].computed - start)))

    @precondition(lambda self: self._several())
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        """A row that others go on without: any of them, but the only one in use."""
        group = data.draw(st.sampled_from(self._several()))
        alone = [row.lease for row in group.rows] if len(group.rows) == 1 else []
        able = [lease for lease in group.leases if lease not in alone]
        self.steps.drop(group, data.draw(st.sampled_from(able)))

    @precondition(lambda self: self.groups)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        group = self.groups.pop(data.draw(st.integers(0, len(self.groups) - 1)))
        self.memory.release(group.leases)

    @invariant()
    def holds(self) -> None:
        self.memory.check_integrity()

    def teardown(self) -> None:
        for group in self.groups:
            self.memory.release(group.leases)
        for prefix in self.placed:
            self.memory.displace(prefix)
        self.memory.check_integrity()
        whole = self.steps.admit([], RowNeeds(ROOM[DECODER], encoded=ROOM[CROSS]))
        assert whole is not None, "something was not given back"
        self.steps.run((whole, 3))

    def _idle(self) -> list[PlacedPrefix]:
        used = [id(prefix) for group in self.groups for prefix in group.prefixes]
        return [prefix for prefix in self.placed if id(prefix) not in used]

    def _started(self) -> list[Group]:
        """Those with tokens that are not those of several rows yet."""
        return [g for g in self.groups if g.rows[0].computed and not g.branches]

    def _several(self) -> list[Group]:
        return [group for group in self.groups if len(group.leases) > 1]

    def _free(self, site: str) -> int:
        free = ROOM[site] - sum(prefix.kv.tokens(site) for prefix in self.placed)
        for needs in (group.needs for group in self.groups):
            forked = needs.own + (needs.rows - 1) * (needs.own - needs.shared)
            free -= forked if site == DECODER else needs.encoded
        return free


def run_machine(name: LayoutName, examples: int) -> None:
    machine = type("Machine", (MemoryMachine,), {"name": name})
    limits = settings(max_examples=examples, stateful_step_count=25, deadline=None)
    run_state_machine_as_test(machine, settings=limits)


def test_any_order_of_things(name: LayoutName) -> None:
    run_machine(name, 12)


@pytest.mark.long
def test_any_order_of_things_for_longer(name: LayoutName) -> None:
    run_machine(name, 1500)
