"""What a memory has room for: all of a request at all sites, or nothing of it at any."""

from __future__ import annotations

import pytest
import torch
from memory.groups import memory_of, placed, prefix_of
from memory.played import Steps

from prefixmux_server.memory.layout import Span
from prefixmux_server.memory.memory import KVMemory, RowNeeds, RowSpan
from prefixmux_server.memory.prefix import DECODER
from prefixmux_server.memory.select import LayoutName


def whole(memory: KVMemory, decoder: int, cross: int) -> bool:
    """Whether a request of so many tokens finds its room; it leaves again."""
    leases = memory.admit([], RowNeeds(decoder, encoded=cross))
    if leases is not None:
        memory.release(leases)
    return leases is not None


@pytest.mark.parametrize(
    "needs",
    [
        RowNeeds(64, encoded=129),
        RowNeeds(193, encoded=64),
        RowNeeds(60, encoded=10, rows=4),
        RowNeeds(64, encoded=128, rows=4, shared=0),
    ],
    ids=["cross", "decoder", "the last fork", "a fork after all of cross"],
)
def test_who_finds_no_room_holds_nothing(name: LayoutName, needs: RowNeeds) -> None:
    """Whichever site is short, and however far admission came."""
    memory = memory_of(name, 192, 128)
    prefix = placed(memory, prefix_of(1, decoder=4, cross=4)) if memory.shares_prefixes else []
    for _ in range(3):
        assert memory.admit(prefix, needs) is None
        memory.check_integrity()
    for held in prefix:
        memory.displace(held)
    assert whole(memory, 192, 128)


def test_a_prefix_that_fits_one_site_only_is_placed_at_none() -> None:
    memory = memory_of("slots", 100, 20)
    for _ in range(3):
        assert memory.place(prefix_of(1, decoder=10, cross=21)) is None
        assert memory.place(prefix_of(2, decoder=101, cross=1)) is None
        memory.check_integrity()
    assert whole(memory, 100, 20)
    assert memory.place(prefix_of(3, decoder=100, cross=20)) is not None


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
@pytest.mark.parametrize("prefix", [0, 3, 70])
def test_fits_is_what_the_empty_memory_holds(name: LayoutName, rows: int, prefix: int) -> None:
    """Else a request would be refused that can be served, or wait for ever."""
    kv = prefix_of(1, decoder=prefix, cross=2)
    for own in (1, 10, 64, 65, 120):
        for shared in {0, 1, own - 1}:
            for capacity in (63, 64, 128, 200, 320, 400):
                memory = memory_of(name, capacity, 64)
                needs = RowNeeds(own, encoded=5, rows=rows, shared=shared)
                held = memory.place(kv)
                leases = None if held is None else memory.admit([held], needs)
                found = leases is not None
                assert memory.fits([kv], needs) == found, (own, shared, capacity)


@pytest.mark.parametrize("own", [1, 20, 55, 56, 57])
def test_a_prefix_named_twice_is_there_once_where_rows_share_it(name: LayoutName, own: int) -> None:
    memory = memory_of(name, 64, 64)
    kv = prefix_of(1, decoder=4, cross=2)
    held = placed(memory, kv)
    leases = memory.admit([*held, *held], RowNeeds(own, encoded=5))
    assert memory.fits([kv, kv], RowNeeds(own, encoded=5)) == (leases is not None)


def test_cross_attention_has_its_own_room(name: LayoutName) -> None:
    memory = memory_of(name, 128, 64)
    kv = prefix_of(1, cross=4)
    assert memory.fits([kv], RowNeeds(1, encoded=60))
    assert not memory.fits([kv], RowNeeds(1, encoded=61))
    assert memory.fits([kv], RowNeeds(128, encoded=1))


def test_nothing_is_given_back_twice(name: LayoutName) -> None:
    memory = memory_of(name)
    leases = memory.admit([], RowNeeds(5, encoded=3, rows=3, shared=2))
    assert leases is not None
    memory.release(leases)
    with pytest.raises(KeyError):
        memory.release(leases)
    memory.check_integrity()


def test_what_nobody_owns_is_nan(name: LayoutName) -> None:
    """So whatever reads what is not its own shows: all other tests here rest on it."""
    memory = memory_of(name)
    steps = Steps(memory)
    group = steps.admit(placed(memory, prefix_of(1, decoder=3, cross=2)), RowNeeds(9, encoded=4))
    assert group is not None
    steps.run((group, 4))
    late = memory.plans([RowSpan(group.leases[0], 4, 2)])
    memory.release(group.leases)
    for site, heads, kv_heads, stored in (("decoder", 4, 2, 2), ("cross", 3, 3, 0)):
        query, kv = torch.ones(heads, 2, 8), torch.ones(kv_heads, stored, 8)
        assert bool(late[site].attend(0, query, kv, kv, 1.0).isnan().all())


def test_a_prefix_that_is_displaced_is_nan() -> None:
    memory = memory_of("slots")
    (held,) = placed(memory, prefix_of(1, decoder=3))
    leases = memory.admit([held], RowNeeds(2, encoded=1))
    assert leases is not None
    late = memory.layouts[DECODER].plan([Span(leases[0].decoder, 0, 1)])
    memory.displace(held)
    with pytest.raises(AssertionError, match="lost its prefix"):
        memory.check_integrity()
    kv = torch.ones(2, 1, 8)
    assert bool(late.attend(1, torch.ones(4, 1, 8), kv, kv, 1.0).isnan().all())
