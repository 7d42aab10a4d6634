"""The requests that are open, by id: what the engine says is handed to whoever asked.

Also who has how many places, so that nobody can keep all of them from everybody else.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from time import monotonic

from prefixmux_server.engine.messages import EngineError, Finished, StepOutput, Timing
from prefixmux_server.engine.pipes.generation import PipedGeneration


@dataclass(eq=False)
class _Place:
    generation: PipedGeneration
    tenant: str
    since: float
    started: bool = False

    def fail(self, error: EngineError) -> None:
        waited = monotonic() - self.since
        timing = Timing(queue_s=0.0, prefix_load_s=0.0, ttft_s=None, total_s=waited)
        self.generation.push(Finished(self.generation.id, (), (), (), timing, error=error))


class Waiters:
    """An id is here from `add` until its `Finished`, its removal, `displace` or `fail_all`: none
    stays."""

    def __init__(self) -> None:
        self._open: dict[str, _Place] = {}
        self._waiting: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, generation: PipedGeneration, tenant: str) -> None:
        """Raises `ValueError` for an id in use."""
        if generation.id in self._open:
            raise ValueError("request id in use")
        self._open[generation.id] = _Place(generation, tenant, monotonic())
        self._waiting[tenant] += 1

    def holds(self, generation: PipedGeneration) -> bool:
        place = self._open.get(generation.id)
        return place is not None and place.generation is generation

    def remove(self, generation: PipedGeneration) -> bool:
        """False if it had ended already."""
        found = self.holds(generation)
        if found:
            self._pop(generation.id)
        return found

    def may_displace(self, tenant: str) -> bool:
        """Whether `displace` would find a place."""
        return self._holder_beside(tenant) is not None

    def displace(self, tenant: str, error: EngineError) -> str | None:
        """A place for `tenant`: whoever has most requests waiting loses the newest, if that is
        fair: its others still are no fewer than the newcomer's. Returns the id that ended."""
        holder = self._holder_beside(tenant)
        if holder is None:
            return None
        for id, place in reversed(self._open.items()):
            if place.tenant == holder and not place.started:
                self._pop(id).fail(error)
                return id
        return None

    def take(self, output: StepOutput) -> None:
        """An id that is not open was aborted a moment ago: the engine had not read it yet."""
        for started in output.started:
            if (place := self._open.get(started.id)) is not None:
                self._start(place)
                place.generation.push(started)
        for piece in output.prompts:
            if piece.id in self._open:
                self._open[piece.id].generation.push(piece)
        for delta in output.deltas:
            if delta.id in self._open:
                self._open[delta.id].generation.push(delta)
        for finished in output.finished:
            if finished.id in self._open:
                self._pop(finished.id).generation.push(finished)

    def fail_all(self, error: EngineError) -> None:
        for id in list(self._open):
            self._pop(id).fail(error)

    def _holder_beside(self, tenant: str) -> str | None:
        most = self._waiting.most_common(1)
        if not most or most[0][1] < self._waiting[tenant] + 2:
            return None
        return most[0][0]

    def _pop(self, id: str) -> _Place:
        place = self._open.pop(id)
        self._start(place)
        return place

    def _start(self, place: _Place) -> None:
        """It waits no longer."""
        if place.started:
            return
        place.started = True
        self._waiting[place.tenant] -= 1
        if not self._waiting[place.tenant]:
            del self._waiting[place.tenant]
