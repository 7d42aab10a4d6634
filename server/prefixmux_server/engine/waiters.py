"""The requests that are open, by id: what the engine says is handed to whoever asked."""

from __future__ import annotations

from time import monotonic

from prefixmux_server.engine.generation import PipedGeneration
from prefixmux_server.engine.messages import EngineError, Finished, StepOutput, Timing


class Waiters:
    """An id is here from `add` until its `Finished`, its removal or `fail_all`: none stays."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[PipedGeneration, float]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, generation: PipedGeneration) -> None:
        """Raises `ValueError` for an id in use."""
        if generation.id in self._open:
            raise ValueError("request id in use")
        self._open[generation.id] = generation, monotonic()

    def holds(self, generation: PipedGeneration) -> bool:
        return self._open.get(generation.id, (None, 0.0))[0] is generation

    def remove(self, generation: PipedGeneration) -> bool:
        """False if it had ended already."""
        found = self.holds(generation)
        if found:
            del self._open[generation.id]
        return found

    def take(self, output: StepOutput) -> None:
        """An id that is not open was aborted a moment ago: the engine had not read it yet."""
        for started in output.started:
            if started.id in self._open:
                self._open[started.id][0].push(started)
        for piece in output.prompts:
            if piece.id in self._open:
                self._open[piece.id][0].push(piece)
        for delta in output.deltas:
            if delta.id in self._open:
                self._open[delta.id][0].push(delta)
        for finished in output.finished:
            if finished.id in self._open:
                self._open.pop(finished.id)[0].push(finished)

    def fail_all(self, error: EngineError) -> None:
        waiting, self._open = self._open, {}
        now = monotonic()
        for generation, since in waiting.values():
            timing = Timing(queue_s=0.0, prefix_load_s=0.0, ttft_s=None, total_s=now - since)
            generation.push(Finished(generation.id, (), (), (), timing, error=error))
