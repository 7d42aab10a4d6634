"""Which waiting requests have their prefixes pinned in host memory, and in what order.

Pins follow the queue: who is next has its prefixes loaded first, and who finds no room lets nobody
overtake it but takes the room from those behind. The loader is given no more than it does soon, so
that a newcomer need not wait for all that others have asked for. Nothing is done while nothing
changes. Knows neither rows nor KV memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prefixmux_server.engine.queue import FairQueue
from prefixmux_server.engine.request import Request
from prefixmux_server.memory.entries import State
from prefixmux_server.memory.residency import Residency


class Prefetch:
    """A waiting request with prefixes is cold (no pins) or warm (all its pins); of the warm some
    are loading. A request that got its row keeps its pins, and is known here no more."""

    def __init__(
        self, waiting: FairQueue, residency: Residency, clock: Callable[[], float]
    ) -> None:
        self._waiting = waiting
        self._residency = residency
        self._clock = clock
        self._cold: set[Request] = set()
        self._warm: set[Request] = set()
        self._loading: set[Request] = set()
        self._stirred = False
        self._seen = -1
        self._failed: tuple[Request | None, int] = None, -1

    def arrive(self, request: Request) -> None:
        """Its prefixes start loading now, unless others wait for that."""
        if (self._cold and request.keys) or not self._pin(request):
            self._cold.add(request)
            self._stirred = True

    def update(self) -> None:
        """Note what has been loaded, and pin what finds room by now."""
        if self._residency.version != self._seen:
            self._end_loads()
            self._stirred = True
        if self._stirred and self._cold:
            self._advance()
        self._stirred = False
        self._seen = self._residency.version

    @property
    def short(self) -> bool:
        """Whether waiting requests lack pins."""
        return bool(self._cold)

    def loading(self, request: Request) -> bool:
        return request in self._loading

    def insist(self, request: Request) -> bool:
        """For who is next: see to its pins at the cost of any that waits. False: not now."""
        if request.pinned:
            return True
        if self._busy_for(request) or self._failed == (request, self._residency.version):
            return False
        done = self._pin(request) or self._take_room(request, self._waiting)
        if not done and self._residency.make_way(request.keys):
            done = self._pin(request)
        if not done:
            self._failed = request, self._residency.version
        return done

    def admit(self, request: Request) -> None:
        """It has its row, and keeps its pins."""
        self._warm.discard(request)

    def leave(self, request: Request) -> None:
        """It is over; so are its pins."""
        self._unpin(request)
        self._cold.discard(request)

    def check_integrity(self) -> None:
        waiting = {request for request in self._waiting if request.keys}
        assert self._cold | self._warm == waiting, "a waiting request is lost"
        assert not any(request.pinned for request in self._cold), "a cold request has pins"
        assert all(request.pinned for request in self._warm), "a warm request has no pins"
        assert self._loading <= self._warm, "a request loads without pins"

    def _advance(self) -> None:
        """Pin in the queue's order, up to who finds no room."""
        met = 0
        for request in self._waiting:
            if request not in self._cold:
                met += bool(request.keys)
                continue
            if not self._pin(request):
                if self._residency.busy or met == len(self._warm):
                    return
                if not self._take_room(request, self._behind(request)):
                    return
            met += 1

    def _behind(self, request: Request) -> list[Request]:
        order = list(self._waiting)
        return order[order.index(request) + 1 :]

    def _take_room(self, request: Request, others: Iterable[Request]) -> bool:
        """Pin with the room of others, the last of them first; what loads is no room yet."""
        victims = [o for o in others if o in self._warm and o not in self._loading]
        while not self._pin(request):
            if not victims:
                return False
            victim = victims.pop()
            self._unpin(victim)
            self._cold.add(victim)
        return True

    def _busy_for(self, request: Request) -> bool:
        absent = (self._residency.state(key) is None for key in request.keys)
        return self._residency.busy and any(absent)

    def _pin(self, request: Request) -> bool:
        for done, key in enumerate(request.keys):
            if not self._residency.pin(key):
                for other in request.keys[:done]:
                    self._residency.unpin(other)
                return False
        request.pinned = True
        self._cold.discard(request)
        if request.keys:
            self._warm.add(request)
            self._begin_load(request)
        return True

    def _unpin(self, request: Request) -> None:
        if request.pinned:
            for key in request.keys:
                self._residency.unpin(key)
            request.pinned = False
        self._warm.discard(request)
        self._loading.discard(request)

    def _begin_load(self, request: Request) -> None:
        """When its prefixes were being read, as far as it had to wait for that."""
        if not self._reads(request):
            request.load_ended = self._clock()
            return
        self._loading.add(request)
        if request.load_started is None:
            request.load_started = self._clock()

    def _end_loads(self) -> None:
        for request in [request for request in self._loading if not self._reads(request)]:
            self._loading.remove(request)
            request.load_ended = self._clock()

    def _reads(self, request: Request) -> bool:
        return any(self._residency.state(key) is State.LOADING for key in request.keys)
