"""Which prefixes are where: budgets, order of eviction, and that waiting always comes to an end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.engines import DictSource, HeldExecutor, InlineExecutor
from support.shelf import Shelf

from prefixmux_server.memory.entries import State
from prefixmux_server.memory.loader import PrefixLoader
from prefixmux_server.memory.prefix import PrefixKey, PrefixKV
from prefixmux_server.memory.residency import Residency

TOKEN = 8  # bytes of one token: keys and values, one layer, one head, one float each
LENGTHS = {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 8}
LOST = "lost"


def key_of(digest: str) -> PrefixKey:
    return PrefixKey("default", digest)


@dataclass
class Stage:
    residency: Residency
    shelf: Shelf
    loads: HeldExecutor
    source: DictSource

    def load(self, *digests: str) -> None:
        """Pin, load and take in, in this order."""
        for digest in digests:
            assert self.residency.pin(key_of(digest))
        self.loads.run_all()
        self.residency.collect()

    def unsettled(self) -> bool:
        return self.residency.unsettled

    def states(self) -> dict[str, State | None]:
        return {digest: self.residency.state(key_of(digest)) for digest in (*LENGTHS, LOST)}


def stage(host: int = 100, device: int = 100, shelf: int = 1000, *, shares: bool = True) -> Stage:
    """Budgets in tokens."""
    source, loads, memory = DictSource(), HeldExecutor(), Shelf(shelf, shares=shares)
    for digest, tokens in LENGTHS.items():
        source.add(digest, torch.zeros(1, 2, tokens, 1, 1))
    loader = PrefixLoader(source, loads, lambda: None)
    residency = Residency(memory, loader, host_bytes=host * TOKEN, device_bytes=device * TOKEN)
    return Stage(residency, memory, loads, source)


class ResidencyMachine(RuleBasedStateMachine):
    """Requests pin, wait, are placed, and leave in any order; loads end whenever they end."""

    @initialize(host=st.integers(1, 12), device=st.integers(1, 12), shares=st.booleans())
    def start(self, host: int, device: int, shares: bool) -> None:
        self.stage = stage(host, device, shelf=9, shares=shares)
        self.host, self.device, self.shares = host, device, shares
        self.residency = self.stage.residency
        self.pins: Counter[str] = Counter()
        self.users: Counter[str] = Counter()
        self.last_use: list[str] = []
        self.told: dict[str, State | None] = {}
        self.wished: set[str] = set()
        self.settled: tuple[int, bool] | None = None

    @rule(digest=st.sampled_from([*LENGTHS, LOST]))
    def pin(self, digest: str) -> None:
        before = self.stage.states()
        idle = [d for d in self._evictable() if before[d]]
        room = self.host * TOKEN - self.residency.host_bytes
        size = 0 if before[digest] else self._size(digest)
        done = self.residency.pin(key_of(digest))
        assert done == (size <= room + sum(map(self._size, idle)))
        gone = [d for d in idle if not self.residency.state(key_of(d))]
        assert gone == idle[: len(gone)], "not the least recently used"
        if not done:
            assert not gone, "evicted for nothing"
            return
        assert not gone or room + sum(map(self._size, gone[:-1])) < size, "evicted too much"
        self.pins[digest] += 1
        self._use(digest)

    @rule(digest=st.sampled_from([*LENGTHS, LOST]))
    def keep(self, digest: str) -> None:
        self.residency.keep(key_of(digest))
        self.wished.add(digest)

    @rule(digest=st.sampled_from([*LENGTHS, LOST]))
    def let_go(self, digest: str) -> None:
        self.residency.let_go(key_of(digest))
        self.wished.discard(digest)
        assert not self.residency.keeps(key_of(digest))

    @rule(load=st.booleans())
    def settle(self, load: bool) -> None:
        before = self.stage.states()
        idle = [digest for digest in self._evictable() if before[digest]]
        again, self.settled = self.settled, (self.residency.version, load)
        self.residency.settle(load=load)
        gone = [d for d in idle if not self.residency.state(key_of(d))]
        assert load or not gone
        assert gone == [d for d in idle if d not in self._kept()][: len(gone)]
        for digest in self._kept():
            if not before[digest]:
                assert load
                self._use(digest)
        if again == self.settled:
            return
        room = self.host * TOKEN // 2 - sum(map(self._size, self._kept()))
        for digest in self.wished - self._kept():
            if self._loaded(digest):
                assert self._size(digest) > room, "there is room to keep it, and it is here"
            elif load and not any(self._is_loading(d) for d in LENGTHS) and digest != LOST:
                spare = self.host * TOKEN - self.residency.host_bytes
                spare += sum(map(self._size, self._evictable()))
                assert self._size(digest) > min(room, spare), "there is room to load it"

    @rule(digests=st.lists(st.sampled_from(list(LENGTHS)), max_size=3))
    def make_way(self, digests: list[str]) -> None:
        wanted, kept = set(digests), self._kept()
        over = sum(map(self._size, wanted | kept)) - self.host * TOKEN
        done = self.residency.make_way(map(key_of, digests))
        gone = kept - self._kept()
        assert done == bool(gone) == (over > 0 and bool(kept - wanted))
        assert not gone & wanted, "gave up what was to be loaded"
        freed = [self._size(digest) for digest in gone]
        assert gone == kept - wanted or sum(freed) >= over, "gave up too little"
        # In which order, of those that came together, is nobody's business.
        assert not gone or sum(freed) - max(freed) < over, "gave up too much"

    @precondition(lambda self: self._unused())
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        digest = data.draw(st.sampled_from(self._unused()))
        self.residency.unpin(key_of(digest))
        self.pins[digest] -= 1
        self._use(digest)

    @precondition(lambda self: self.stage.loads.held)
    @rule(data=st.data())
    def a_load_ends(self, data: st.DataObject) -> None:
        held = self.stage.loads.held
        held.pop(data.draw(st.integers(0, len(held) - 1)))()

    @rule()
    def collect(self) -> None:
        self.residency.collect()

    @precondition(lambda self: self._placeable())
    @rule(data=st.data())
    def place(self, data: st.DataObject) -> None:
        digest = data.draw(st.sampled_from(self._placeable()))
        key = key_of(digest)
        used = sum(LENGTHS[d] for d in LENGTHS if self.users[d] and d != digest)
        possible = not self.shares or used + LENGTHS[digest] <= min(self.device, 9)
        placement = self.residency.place(key)
        assert (placement is not None) == possible
        if placement is not None:
            assert placement.kv.key == key
            self.users[digest] += 1

    @precondition(lambda self: any(self.users.values()))
    @rule(data=st.data())
    def unplace(self, data: st.DataObject) -> None:
        digest = data.draw(st.sampled_from([d for d in LENGTHS if self.users[d]]))
        self.residency.unplace(key_of(digest))
        self.users[digest] -= 1

    @rule()
    def reclaim(self) -> None:
        idle = [p.kv.key.digest for p in self.stage.shelf.placed]
        idle = [digest for digest in idle if not self.users[digest]]
        kept = [digest for digest in idle if digest in self._kept()]
        assert self.residency.reclaim() == bool(idle)
        if len(kept) < len(idle):
            placed = [p.kv.key.digest for p in self.stage.shelf.placed]
            assert set(kept) <= set(placed), "what is kept was displaced before others"

    @invariant()
    def holds(self) -> None:
        self.residency.check_integrity()
        self.stage.shelf.check_integrity()
        assert self.residency.host_bytes <= self.host * TOKEN
        assert self._kept() <= self.wished
        assert sum(map(self._size, self._kept())) <= self.host * TOKEN // 2
        assert self.residency.device_bytes <= self.device * TOKEN
        states = self.stage.states()
        placed = {p.kv.key.digest for p in self.stage.shelf.placed}
        assert placed == {d for d, state in states.items() if state is State.DEVICE}
        for digest, state in states.items():
            assert state is not None or not self.pins[digest], "a pinned prefix is gone"
            assert state is not None or digest not in self._kept(), "a kept prefix is gone"
            assert not self.users[digest] or not self.shares or digest in placed

    @invariant()
    def tells_every_change(self) -> None:
        self.told |= {key.digest: state for key, state in self.residency.drain_changes()}
        for digest, state in self.stage.states().items():
            for memory in (State.HOST, State.DEVICE):
                assert (self.told.get(digest) is memory) == (state is memory), digest

    def teardown(self) -> None:
        self.stage.loads.run_all()
        self.residency.collect()
        for digest, state in self.stage.states().items():
            assert state is not State.LOADING, "a load never ends"
            assert (state is State.FAILED) == (digest == LOST and self.pins[LOST] > 0)
            for _ in range(self.users[digest]):
                self.residency.unplace(key_of(digest))
            for _ in range(self.pins[digest]):
                self.residency.unpin(key_of(digest))
        while self.residency.reclaim():
            pass
        assert self.residency.device_bytes == 0
        self.residency.check_integrity()

    def _kept(self) -> set[str]:
        return {d for d in (*LENGTHS, LOST) if self.residency.keeps(key_of(d))}

    def _evictable(self) -> list[str]:
        """The least recently used first."""
        kept = self._kept()
        return [d for d in self.last_use if not self.pins[d] and d not in kept and self._loaded(d)]

    def _is_loading(self, digest: str) -> bool:
        return self.residency.state(key_of(digest)) is State.LOADING

    def _loaded(self, digest: str) -> bool:
        return self.residency.state(key_of(digest)) in (State.HOST, State.DEVICE)

    def _size(self, digest: str) -> int:
        return LENGTHS.get(digest, 0) * TOKEN

    def _use(self, digest: str) -> None:
        self.last_use = [d for d in self.last_use if d != digest] + [digest]

    def _unused(self) -> list[str]:
        return [d for d in self.pins if self.pins[d] > self.users[d]]

    def _placeable(self) -> list[str]:
        return [d for d in self._unused() if self._loaded(d)]


def run_machine(examples: int) -> None:
    limits = settings(max_examples=examples, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(ResidencyMachine, settings=limits)


def test_any_order_of_things() -> None:
    run_machine(200)


@pytest.mark.long
def test_any_order_of_things_for_longer() -> None:
    run_machine(10_000)


def test_the_least_recently_used_goes_first() -> None:
    scene = stage(host=9)
    scene.load("a", "b", "c")
    for digest in "bca":
        scene.residency.unpin(key_of(digest))
    scene.load("e")
    states = scene.states()
    assert states["b"] is None
    assert (states["a"], states["c"], states["e"]) == (State.HOST,) * 3


def test_who_has_just_been_served_was_used_last() -> None:
    """A long request ends now: its prefix was in use until now, however early it was pinned."""
    scene = stage(host=5)
    scene.load("c")
    scene.load("b")
    scene.residency.unpin(key_of("b"))
    scene.residency.unpin(key_of("c"))
    scene.load("a")
    assert scene.states()["b"] is None
    assert scene.states()["c"] is State.HOST


def test_what_cannot_help_is_not_evicted() -> None:
    """A request that must wait anyway leaves the idle prefixes where they are."""
    scene = stage(host=8)
    scene.load("d", "b")
    scene.residency.unpin(key_of("b"))
    assert not scene.residency.pin(key_of("e"))
    assert scene.states()["b"] is State.HOST


def test_a_load_that_nobody_waits_for_still_comes_in() -> None:
    scene = stage(host=3)
    scene.residency.pin(key_of("c"))
    scene.residency.unpin(key_of("c"))
    assert not scene.residency.pin(key_of("b")), "memory that a load will fill is not free"
    scene.loads.run_all()
    scene.residency.collect()
    assert scene.residency.pin(key_of("b"))
    assert scene.states()["c"] is None


def test_room_for_one_only_serves_all_in_turn() -> None:
    """Requests pin in order: each comes to its turn, whatever waits behind it."""
    scene = stage(host=5)
    for digest in "abcdeabcde":
        assert scene.residency.pin(key_of(digest))
        scene.loads.run_all()
        scene.residency.collect()
        assert scene.states()[digest] is State.HOST
        assert scene.residency.place(key_of(digest)) is not None
        scene.residency.unplace(key_of(digest))
        scene.residency.unpin(key_of(digest))
        scene.residency.check_integrity()


def test_more_than_the_budget_is_known_before_loading() -> None:
    scene = stage(host=7)
    assert scene.residency.exceeds_budget([key_of("f")])
    assert scene.residency.exceeds_budget([key_of("d"), key_of("e")])
    assert not scene.residency.exceeds_budget([key_of("d"), key_of("d")])
    assert not scene.residency.exceeds_budget([])
    assert not scene.loads.held


def test_a_load_may_end_with_anything() -> None:
    class Broken(DictSource):
        def load(self, key: PrefixKey) -> PrefixKV:
            raise MemoryError

    woken: list[bool] = []
    loader = PrefixLoader(Broken(), InlineExecutor(), lambda: woken.append(True))
    residency = Residency(Shelf(10), loader, host_bytes=10, device_bytes=10)
    assert residency.pin(key_of("a"))
    residency.collect()
    failure = residency.failure(key_of("a"))
    assert failure is not None
    assert failure.code == "prefix_unavailable"
    assert woken == [True]


class TestKept:
    def test_is_loaded_without_a_request_and_stays(self) -> None:
        scene = stage(host=10)
        scene.residency.keep(key_of("e"))
        assert scene.unsettled()
        scene.residency.settle(load=True)
        scene.loads.run_all()
        assert scene.unsettled(), "somebody has to take it in"
        scene.residency.collect()
        assert not scene.unsettled()
        for digest in "abcd" * 3:
            scene.load(digest)
            scene.residency.unpin(key_of(digest))
        assert scene.residency.keeps(key_of("e"))
        assert scene.states()["e"] is State.DEVICE

    def test_requests_come_before_it(self) -> None:
        scene = stage(host=10)
        scene.residency.keep(key_of("e"))
        scene.residency.settle(load=False)
        assert not scene.loads.held
        scene.residency.settle(load=True)
        assert len(scene.loads.held) == 1

    def test_leaves_half_of_the_memory_to_others(self) -> None:
        scene = stage(host=10)
        for digest in "bcd":
            scene.residency.keep(key_of(digest))
        scene.residency.settle(load=True)
        assert [scene.residency.keeps(key_of(d)) for d in "bcd"] == [True, True, False]
        assert scene.residency.pin(key_of("e"))

    def test_who_is_first_has_the_room_and_who_is_next_gets_it(self) -> None:
        scene = stage(host=10)
        for digest in "de":
            scene.residency.keep(key_of(digest))
        scene.residency.settle(load=True)
        assert not scene.residency.keeps(key_of("e"))
        scene.residency.let_go(key_of("d"))
        scene.residency.settle(load=True)
        assert scene.residency.keeps(key_of("e"))

    def test_makes_way_for_what_fits_beside_nothing_and_comes_back(self) -> None:
        scene = stage(host=10)
        scene.residency.keep(key_of("c"))
        scene.residency.settle(load=True)
        scene.loads.run_all()
        scene.residency.collect()
        assert not scene.residency.pin(key_of("f"))
        assert scene.residency.make_way([key_of("f")])
        scene.load("f")
        assert scene.states()["c"] is None
        scene.residency.settle(load=True)
        assert not scene.unsettled(), "there is no room for it now"
        scene.residency.unpin(key_of("f"))
        assert scene.unsettled()
        scene.residency.settle(load=True)
        scene.loads.run_all()
        scene.residency.collect()
        assert scene.states()["c"] in (State.HOST, State.DEVICE)

    def test_keeping_twice_and_letting_go_of_nothing_change_nothing(self) -> None:
        scene = stage(host=10)
        scene.residency.let_go(key_of("a"))
        for _ in range(2):
            scene.residency.keep(key_of("a"))
            scene.residency.settle(load=True)
        assert len(scene.loads.held) == 1
        scene.loads.run_all()
        scene.residency.collect()
        for _ in range(2):
            scene.residency.let_go(key_of("a"))
        assert scene.residency.pin(key_of("f"))
        assert scene.residency.pin(key_of("b"))
        assert scene.states()["a"] is None

    @pytest.mark.parametrize("digest", [LOST, "f"])
    def test_what_cannot_be_kept_is_said_and_not_tried_for_ever(
        self, digest: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        scene = stage(host=10)
        scene.residency.keep(key_of(digest))
        for _ in range(3):
            scene.residency.settle(load=True)
            scene.loads.run_all()
            scene.residency.collect()
        assert not scene.unsettled()
        assert scene.states()[digest] is None
        assert len(scene.source.loads) == (digest == LOST)
        assert caplog.text.count("not kept") == 1

    def test_what_a_request_could_load_after_all_is_kept_from_then_on(self) -> None:
        scene = stage(host=20)
        scene.residency.keep(key_of(LOST))
        scene.residency.settle(load=True)
        scene.loads.run_all()
        scene.residency.collect()
        scene.source.add(LOST, torch.zeros(1, 2, 3, 1, 1))
        scene.load(LOST)
        scene.residency.settle(load=True)
        assert scene.residency.keeps(key_of(LOST))

    def test_is_the_last_to_lose_its_place_on_the_device(self) -> None:
        scene = stage(host=100, device=9)
        scene.residency.keep(key_of("d"))
        scene.residency.settle(load=True)
        scene.loads.run_all()
        scene.residency.collect()
        for digest in "bc":
            scene.load(digest)
            assert scene.residency.place(key_of(digest))
            scene.residency.unplace(key_of(digest))
        assert scene.residency.reclaim()
        assert scene.shelf.displaced == ["b"]
        scene.load("e")
        assert scene.residency.place(key_of("e"))
        assert scene.shelf.displaced == ["b", "c"]
        scene.load("f")
        assert scene.residency.place(key_of("f")) is None, "e is seen by a row"
        assert scene.shelf.displaced == ["b", "c", "d"]
