"""Rows of one request that share a beginning and go on from each other's tokens."""

from __future__ import annotations

import random

import pytest
from memory.groups import Group, memory_of, placed, prefix_of
from memory.played import Steps

from prefixmux_server.memory.memory import KVMemory, RowNeeds
from prefixmux_server.memory.select import LayoutName

PARENTS = {
    "each its own": (0, 1, 2, 3),
    "exchanged": (1, 0, 3, 2),
    "in a ring": (3, 0, 1, 2),
    "all from one": (2, 2, 2, 2),
    "one dies": (0, 0, 2, 3),
    "fewer": (3, 1),
}


def admit(memory: KVMemory, steps: Steps, needs: RowNeeds, *, infix: bool = False) -> Group:
    prefixes = [prefix_of(1, decoder=5, cross=2), prefix_of(2, shifts=False, encoder=1, decoder=3)]
    if infix:
        prefixes.append(prefix_of(3, infix=True, decoder=4))
    group = steps.admit(placed(memory, *prefixes), needs)
    assert group is not None
    return group


@pytest.mark.parametrize("kind", PARENTS)
@pytest.mark.parametrize("infix", [False, True])
def test_rows_go_on_from_their_parents(name: LayoutName, kind: str, infix: bool) -> None:
    """Whoever parents whom, step after step; a bare row runs beside them."""
    memory = memory_of(name)
    steps = Steps(memory)
    needs = RowNeeds(12, infix_at=2 if infix else 0, encoded=4, rows=4, shared=5)
    group = admit(memory, steps, needs, infix=infix)
    other = steps.admit([], RowNeeds(20, encoded=3))
    assert other is not None
    while group.rows[0].computed < 5:
        steps.run((group, group.runnable), (other, 1))
    steps.branch(group, (0, 0, 0, 0))
    for _ in range(3):
        steps.run((other, 1), (group, 1))
        steps.branch(group, PARENTS[kind] if len(group.rows) == 4 else (1, 0, 0, 1))
        memory.check_integrity()
    steps.run((other, 2), (group, 2))


def test_a_prompt_of_one_token(name: LayoutName) -> None:
    memory = memory_of(name)
    steps = Steps(memory)
    group = admit(memory, steps, RowNeeds(4, encoded=1, rows=3, shared=1))
    steps.run((group, 1))
    steps.branch(group, (0, 0, 0))
    steps.run((group, 1))
    steps.branch(group, (2, 1, 0))
    steps.run((group, 2))


def test_one_branch_at_first_and_more_later(name: LayoutName) -> None:
    """As a forced first token makes it; rows that were not in use get all they have missed."""
    memory = memory_of(name)
    steps = Steps(memory)
    group = admit(memory, steps, RowNeeds(9, encoded=1, rows=4, shared=2))
    steps.run((group, 2))
    steps.branch(group, (0,))
    steps.run((group, 2))
    steps.branch(group, (0, 0, 0))
    steps.run((group, 1))
    steps.branch(group, (2, 0))
    steps.run((group, 1))
    steps.branch(group, (1, 0, 1, 0))
    steps.run((group, 3))


def test_groups_of_many_rows(name: LayoutName) -> None:
    """A parent and its child may live anywhere."""
    memory = memory_of(name, 64 * 34, 448)
    steps, rng = Steps(memory), random.Random(0)
    groups = [
        admit(memory, steps, RowNeeds(6, encoded=2, rows=11, shared=2 + number))
        for number in range(3)
    ]
    steps.run(*[(group, group.runnable) for group in groups])
    for group in groups:
        steps.branch(group, [0] * 11)
    for _ in range(2):
        steps.run(*[(group, 1) for group in rng.sample(groups, 3)])
        for group in groups:
            steps.branch(group, [rng.randrange(11) for _ in range(11)])
    memory.release(groups.pop(0).leases)
    memory.check_integrity()
    steps.run(*[(group, 1) for group in groups if group.runnable])


def test_rows_that_move_while_a_group_lives(name: LayoutName) -> None:
    """A row that leaves is replaced by the last pages of all, which may be a group's."""
    memory = memory_of(name, 1024)
    steps = Steps(memory)
    bare = [steps.admit([], RowNeeds(20, encoded=3)) for _ in range(3)]
    group = admit(memory, steps, RowNeeds(12, encoded=4, rows=3, shared=3))
    steps.run((group, 3))
    steps.branch(group, (0, 0, 0))
    for leaving in bare:
        assert leaving is not None
        memory.release(leaving.leases)
        memory.check_integrity()
        steps.run((group, 1))
        steps.branch(group, (1, 2, 0))
    steps.run((group, 2))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_rows_leave_one_by_one(name: LayoutName, order: tuple[int, ...]) -> None:
    """The first among them, whose beginning the others have; what leaves can be used at once."""
    memory = memory_of(name, 448)
    steps = Steps(memory)
    prefixes = placed(memory, prefix_of(1, decoder=5, cross=2))
    group = steps.admit(prefixes, RowNeeds(59, encoded=4, rows=4, shared=20))
    assert group is not None
    steps.run((group, 20))
    steps.branch(group, (0, 0, 0, 0))
    leases = list(group.leases)
    for left, leaving in enumerate(order, start=1):
        steps.run((group, 2))
        steps.drop(group, leases[leaving])
        memory.check_integrity()
        given_back = left * (39 if memory.shares_prefixes else 64)
        used = 448 - 64 * 4 if name == "rows" else 448 - 5 - 59 - 3 * 39
        other = steps.admit([], RowNeeds((used + given_back) // 64 * 64, encoded=3))
        assert other is not None
        steps.run((other, 3), (group, 1))
        memory.release(other.leases)
    memory.release(group.leases)
    memory.check_integrity()
