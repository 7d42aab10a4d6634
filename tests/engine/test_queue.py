"""Fair shares: who goes next, and that what each tenant gets is what it is due."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.engines import submit

from prefixmux_server.engine.messages import Share
from prefixmux_server.engine.queue import FairQueue, Verdict
from prefixmux_server.engine.request import Request

CAPACITY = 64
LONGEST = 16
CLOCK = count()


def waiting(
    tenant: str, prompt: int = 1, new: int = 1, priority: int = 0, share: Share | None = None
) -> Request:
    number = next(CLOCK)
    asked = submit(
        f"{tenant}-{number}", range(prompt), tenant=tenant, max_new_tokens=new, priority=priority
    )
    return Request(replace(asked, share=share or Share()), float(number), encoded=True)


def cost(request: Request) -> int:
    return len(request.submit.input_ids)


def take_all(queue: FairQueue) -> list[Request]:
    """In turn, each charged for its prompt."""
    taken: list[Request] = []

    def offer(request: Request) -> Verdict:
        queue.charge(request.submit.tenant, cost(request))
        return Verdict.TAKEN

    while (request := queue.next_admissible(offer)) is not None:
        taken.append(request)
    return taken


@dataclass
class Server:
    """A batch of `CAPACITY` tokens and so many rows; it gives out tokens as the engine does."""

    queue: FairQueue = field(default_factory=FairQueue)
    rows: int = 8
    running: list[list[int | Request]] = field(default_factory=list)
    given: dict[str, int] = field(default_factory=dict)
    waiting: Counter[str] = field(default_factory=Counter)
    blocked: Request | None = None

    def push(self, request: Request) -> None:
        self.queue.push(request)
        self.waiting[request.submit.tenant] += 1

    def used(self) -> int:
        return sum(self.need(r) for r, _ in self._running())

    def need(self, request: Request) -> int:
        return cost(request) + request.submit.sampling.max_new_tokens

    def of(self, tenant: str) -> int:
        return sum(r.submit.tenant == tenant for r, _ in self._running())

    def step(self) -> None:
        """Admit who fits, then one token for each row."""
        self.blocked = None
        while (request := self.queue.next_admissible(self._offer)) is not None:
            self.waiting[request.submit.tenant] -= 1
        for entry in list(self._running()):
            request, left = entry
            self._give(request.submit.tenant, 1)
            self.running.remove([request, left])
            if left > 1:
                self.running.append([request, left - 1])

    def _offer(self, request: Request) -> Verdict:
        tenant, most = request.submit.tenant, request.submit.share.max_running
        if most is not None and self.of(tenant) >= most:
            return Verdict.ITS_LIMIT
        if len(self.running) >= self.rows or self.used() + self.need(request) > CAPACITY:
            self.blocked = request
            return Verdict.NO_ROOM
        self.running.append([request, request.submit.sampling.max_new_tokens])
        self._give(tenant, cost(request))
        return Verdict.TAKEN

    def _give(self, tenant: str, tokens: int) -> None:
        self.given[tenant] = self.given.get(tenant, 0) + tokens
        self.queue.charge(tenant, tokens)

    def _running(self) -> Sequence[tuple[Request, int]]:
        found = []
        for request, left in self.running:
            assert isinstance(request, Request)
            assert isinstance(left, int)
            found.append((request, left))
        return found


sizes = st.tuples(st.integers(1, LONGEST), st.integers(1, 30))


def refill(server: Server, tenant: str, size: tuple[int, int], share: Share) -> None:
    """Backlogged: more wait than find room in one step."""
    while server.waiting[tenant] <= server.rows:
        server.push(waiting(tenant, *size, share=share))


@given(st.lists(sizes, min_size=2, max_size=4), st.integers(1, 12), st.randoms())
@settings(deadline=None, max_examples=50)
def test_backlogged_tenants_are_given_equally(
    kinds: list[tuple[int, int]], rows: int, rng: random.Random
) -> None:
    """The paper's bound for any span of time in which both wait: 2 max(w_p L_in, w_q M)."""
    server, history = Server(rows=rows), []
    for _ in range(150):
        for number, kind in enumerate(kinds):
            size = kind if rng.random() < 0.8 else (rng.randint(1, LONGEST), rng.randint(1, 30))
            refill(server, f"t{number}", size, Share())
        server.step()
        history.append([server.given.get(f"t{n}", 0) for n in range(len(kinds))])
    bound = 2 * max(LONGEST, CAPACITY)
    for one in range(len(kinds)):
        for other in range(one):
            gaps = [given[one] - given[other] for given in history]
            assert max(gaps) - min(gaps) <= bound


@given(st.sampled_from([0.25, 0.5, 2.0, 3.0, 8.0]), sizes, sizes)
@settings(deadline=None, max_examples=50)
def test_weights_are_honoured(weight: float, one: tuple[int, int], two: tuple[int, int]) -> None:
    server = Server()
    for _ in range(200):
        refill(server, "one", one, Share())
        refill(server, "two", two, Share(weight=weight))
        server.step()
    bound = 2 * CAPACITY / min(1.0, weight)
    assert abs(server.given["one"] - server.given["two"] / weight) <= bound


@given(st.lists(st.tuples(st.sampled_from("abc"), sizes, st.booleans()), max_size=60))
@settings(deadline=None)
def test_no_room_stays_empty_while_somebody_fits(
    events: list[tuple[str, tuple[int, int], bool]],
) -> None:
    """And all come to their turn."""
    server, asked = Server(), 0
    for tenant, size, steps in events:
        server.push(waiting(tenant, *size))
        asked += 1
        if steps:
            server.step()
            assert not len(server.queue) or server.blocked is not None
    for _ in range(asked * 31):
        server.step()
    assert not server.queue and not server.running


@given(sizes, st.integers(1, 60))
@settings(deadline=None, max_examples=50)
def test_who_was_idle_has_saved_nothing_up(size: tuple[int, int], quiet: int) -> None:
    server = Server()
    for step in range(quiet + 100):
        refill(server, "busy", size, Share())
        if step == quiet:
            before = dict(server.given)
        if step >= quiet:
            refill(server, "late", size, Share())
        server.step()
    since = {t: given - before.get(t, 0) for t, given in server.given.items()}
    assert abs(since["busy"] - since["late"]) <= 2 * CAPACITY


@given(sizes, st.integers(1, 3))
@settings(deadline=None, max_examples=50)
def test_a_tenant_at_its_limit_blocks_only_itself_and_saves_nothing_up(
    size: tuple[int, int], most: int
) -> None:
    server = Server()
    for _ in range(60):
        refill(server, "limited", size, Share(max_running=most))
        refill(server, "free", (1, 1), Share())
        server.step()
        assert server.of("limited") <= most
        assert server.given.get("free", 0)
    before = dict(server.given)
    for _ in range(100):
        refill(server, "limited", size, Share())
        refill(server, "free", size, Share())
        server.step()
    since = {tenant: given - before[tenant] for tenant, given in server.given.items()}
    assert since["limited"] - since["free"] <= 2 * CAPACITY


def test_a_large_request_is_not_starved_by_any_number_of_tenants() -> None:
    """Each comes once, and is next to none that waited."""
    server = Server()
    server.push(waiting("before", 10, 30))
    server.step()
    large = waiting("large", LONGEST, CAPACITY - LONGEST)
    server.push(large)
    for number in range(100):
        server.push(waiting(f"small{number}", 1, 1))
        server.step()
        if large not in list(server.queue):
            return
    raise AssertionError("it never came to its turn")


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 9), st.integers(-1, 1))))
def test_iteration_tells_who_is_next(asked: list[tuple[str, int, int]]) -> None:
    queue = FairQueue()
    for number, (tenant, prompt, priority) in enumerate(asked):
        queue.push(waiting(tenant, prompt, priority=priority, share=Share(weight=0.5 + number % 3)))
        if number % 3 == 0:
            queue.charge(tenant, 7)
    told = list(queue)
    assert len(told) == len(queue) == len(asked)
    assert take_all(queue) == told
    assert not len(queue)


def test_inside_a_tenant_by_priority_then_first_come() -> None:
    queue = FairQueue()
    requests = [waiting("t", priority=priority) for priority in (0, 2, 1, 2, -1, 0)]
    for request in requests:
        queue.push(request)
    assert take_all(queue) == [requests[n] for n in (1, 3, 2, 0, 5, 4)]


def test_who_waited_longest_goes_first_among_equals() -> None:
    queue = FairQueue()
    requests = [waiting(tenant) for tenant in "zyx"]
    for request in reversed(requests):
        queue.push(request)
    assert take_all(queue) == requests


@pytest.mark.parametrize("verdict", list(Verdict))
def test_who_may_overtake_whom(verdict: Verdict) -> None:
    queue = FairQueue()
    first, second, other = waiting("a"), waiting("a"), waiting("b")
    for request in (first, second, other):
        queue.push(request)
    offered: list[Request] = []

    def offer(request: Request) -> Verdict:
        offered.append(request)
        return verdict if request is first else Verdict.NOT_YET

    taken = queue.next_admissible(offer)
    expected = {
        Verdict.TAKEN: [first],
        Verdict.NOT_YET: [first, second, other],
        Verdict.ITS_LIMIT: [first, other],
        Verdict.NO_ROOM: [first],
    }
    assert offered == expected[verdict]
    assert taken is (first if verdict is Verdict.TAKEN else None)
    assert len(queue) == 3 - (taken is not None)


def test_a_request_that_leaves_is_offered_no_more() -> None:
    queue = FairQueue()
    requests = [waiting("a"), waiting("a"), waiting("b")]
    for request in requests:
        queue.push(request)
    queue.remove(requests[0])
    queue.remove(requests[2])
    assert list(queue) == take_all(queue) == [requests[1]]


def test_a_newcomer_to_an_empty_queue_is_level_with_who_left_last() -> None:
    queue = FairQueue()
    queue.push(waiting("old", 50))
    take_all(queue)
    queue.push(waiting("new"))
    assert queue.served("new") == queue.served("old") == 50
