"""Both layouts: what is admitted is there, what is released is free, whatever the order.

Contents are read through attention itself: whatever a step gives must be what the formula gives
over the row's own prefixes and tokens. All that nobody owns is NaN.
"""

from __future__ import annotations

import pytest
from support.rows import Steps, layout_of, prefix_of, row_of, segment

from prefixmux_server.memory.layout import Lease, Span
from prefixmux_server.memory.select import LayoutName


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
    """No length can hold memory that it does not use."""
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


def test_rows_of_many_lengths_do_not_hold_each_others_memory() -> None:
    """Every length had a crowd once; a row left in each must not keep the crowd's memory."""
    layout = layout_of("rows", 2048)
    left: list[Lease] = []
    for length in (64, 128, 256, 512):
        crowd = [layout.admit([], length) for _ in range(2048 // length - len(left))]
        kept = [lease for lease in crowd if lease is not None]
        left.append(kept.pop())
        for lease in kept:
            layout.release(lease)
        layout.check_integrity()
    room = 2048 - sum(lease.reserved for lease in left)
    assert layout.admit([], room) is not None
    layout.check_integrity()
    assert layout.admit([], 1) is None
