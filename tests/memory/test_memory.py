"""Memory of three sites: what every row sees at each of them, step by step.

Prefixes of every kind, infixes, rows that begin at different times, and all in one batch.
"""

from __future__ import annotations

import pytest
import torch
from memory.groups import memory_of, placed, prefix_of
from memory.played import Steps

from prefixmux_server.memory.layout import Lease, Placement, Segment, Span
from prefixmux_server.memory.memory import RowNeeds
from prefixmux_server.memory.prefix import DECODER
from prefixmux_server.memory.select import LayoutName


def test_rows_of_several_lengths_that_begin_in_turn(name: LayoutName) -> None:
    """Old rows read what they have while new ones write; lengths meet the borders of pages."""
    memory = memory_of(name, 2048, 2048)
    steps = Steps(memory)
    prefixes = placed(memory, prefix_of(1, cross=3), prefix_of(2, encoder=4, decoder=5, cross=60))
    begun = []
    for number, encoded in enumerate((1, 5, 64, 61, 70, 4)):
        group = steps.admit(prefixes[: number % 3], RowNeeds(20, encoded=encoded))
        assert group is not None
        begun.append(group)
        steps.run(*[(group, 1 + (number + n) % 3) for n, group in enumerate(begun)])
    for leaving in (0, 2, 0):
        memory.release(begun.pop(leaving).leases)
        memory.check_integrity()
        steps.run(*[(group, 1) for group in begun])


@pytest.mark.parametrize("shifts", [True, False])
@pytest.mark.parametrize("counts", [(1, 1, 1, 1, 1, 1), (3, 3), (2, 1, 2, 1)])
def test_an_infix(name: LayoutName, shifts: bool, counts: tuple[int, ...]) -> None:
    """Three tokens, an infix, and what comes after it."""
    memory = memory_of(name)
    steps = Steps(memory)
    infix = prefix_of(1, shifts=shifts, infix=True, decoder=4)
    group = steps.admit(placed(memory, infix), RowNeeds(9, infix_at=3, encoded=2))
    bare = steps.admit([], RowNeeds(9, encoded=3))
    assert group is not None
    assert bare is not None
    for count in counts:
        steps.run((bare, 1), (group, count))
    assert [group.leases[0].decoder.cell(own) for own in (0, 2, 3, 8)] == [0, 2, 7, 12]
    last = 8 + 4 if shifts else 8
    assert group.leases[0].decoder.position(8) == last


def test_what_comes_before_an_infix_never_sees_it(name: LayoutName) -> None:
    """One infix outweighs all else by far: not to be missed behind it, and not there before it."""
    memory = memory_of(name)
    kv = prefix_of(1, infix=True, decoder=4)
    kv.sites[DECODER].fill_(1e20)
    group = Steps(memory).admit(placed(memory, kv), RowNeeds(9, infix_at=3, encoded=1))
    assert group is not None
    decoder = memory.layouts[DECODER]
    query, own = torch.ones(4, 2, 8), torch.ones(2, 2, 8)
    for start, count, largest in ((0, 2, 1.0), (2, 1, 1.0), (3, 1, 1e20), (4, 2, 1e20)):
        plan = decoder.plan([Span(group.leases[0].decoder, start, count)])
        found = plan.attend(1, query[:, :count], own[:, :count], own[:, :count], 1.0)
        assert torch.equal(found, torch.full_like(found, largest))


@pytest.mark.parametrize(("start", "count"), [(0, 4), (2, 2), (1, 8)])
def test_no_step_goes_across_an_infix(start: int, count: int) -> None:
    lease = Lease((Segment(Placement(prefix_of(1, infix=True, decoder=4)), 3),), 9)
    with pytest.raises(ValueError, match="infix"):
        Span(lease, start, count)


CHAINS = (
    (),
    (0,),
    (1,),
    (0, 1),
    (1, 0),
    (0, 0),
    (1, 2, 1),
    (3, 0, 4),
    (0, 5),
    (5, 1),
    (2, 1, 5, 0),
    (5, 6),
    (6, 5),
    (5, 5),
)


def test_prefixes_in_a_row(name: LayoutName) -> None:
    """With positions and without, at some sites and at others, the same one twice, and infixes
    among them in any order; all in one batch."""
    memory = memory_of(name, 2048, 2048)
    steps = Steps(memory)
    held = placed(
        memory,
        prefix_of(0, decoder=5),
        prefix_of(1, shifts=False, decoder=7),
        prefix_of(2, encoder=2, decoder=1, cross=4),
        prefix_of(3, encoder=3),
        prefix_of(4, cross=6),
        prefix_of(5, infix=True, decoder=3),
        prefix_of(6, shifts=False, infix=True, decoder=2),
    )
    groups = []
    for chain in CHAINS:
        prefixes = [held[index] for index in chain]
        at = 2 if {5, 6} & set(chain) else 0
        group = steps.admit(prefixes, RowNeeds(8, infix_at=at, encoded=3))
        assert group is not None
        groups.append(group)
    steps.run(*[(group, min(2, group.runnable)) for group in groups])
    steps.run(*[(group, 1) for group in groups])
    steps.run(*[(group, group.runnable) for group in groups])
    for group in groups:
        assert not group.runnable
        memory.release(group.leases)
    for prefix in held:
        memory.displace(prefix)
    memory.check_integrity()


def test_what_is_added_to_stored_tokens(name: LayoutName) -> None:
    """To the middle of a row, behind a prefix; its neighbours keep what they have."""
    memory = memory_of(name)
    steps = Steps(memory)
    prefixes = placed(memory, prefix_of(0, decoder=5))
    group = steps.admit(prefixes, RowNeeds(12, encoded=2))
    other = steps.admit(prefixes, RowNeeds(12, encoded=2))
    assert group is not None
    assert other is not None
    steps.run((group, 6), (other, 6))
    steps.add(group, 2, 3)
    steps.run((group, 2), (other, 2))
    steps.add(group, 0, 8)
    steps.run((other, 1), (group, 4))


def test_what_is_added_on_both_sides_of_an_infix(name: LayoutName) -> None:
    """The infix between them, and what stands behind it, stay as they are."""
    memory = memory_of(name)
    steps = Steps(memory)
    group = steps.admit(
        placed(memory, prefix_of(0, decoder=5, infix=True)), RowNeeds(12, infix_at=2, encoded=2)
    )
    assert group is not None
    while group.rows[0].computed < 6:
        steps.run((group, min(group.runnable, 2)))
    steps.add(group, 1, 4)
    steps.run((group, 3))


def test_what_a_row_has_stored_can_be_read(name: LayoutName) -> None:
    memory = memory_of(name)
    steps = Steps(memory)
    group = steps.admit(placed(memory, prefix_of(0, decoder=5)), RowNeeds(6, encoded=1))
    assert group is not None
    steps.run((group, 4))
    steps.run((group, 2))
    steps.add(group, 1, 2)
    assert torch.equal(memory.read(group.leases[0]), group.rows[0].own)
