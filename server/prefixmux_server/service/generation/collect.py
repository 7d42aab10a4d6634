"""Reading one generation to its end, or to where stop strings cut it.

Knows the engine's messages; what the answer says of it is `assemble.py`'s.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator

from prefixmux_server.engine import messages
from prefixmux_server.engine.front import Generation
from prefixmux_server.engine.messages import Finished, Started, TokenDelta
from prefixmux_server.errors import EngineUnavailable, Relayed
from prefixmux_server.service.generation.admission import Admitted, monotonic
from prefixmux_server.service.generation.answer import TokenEvent
from prefixmux_server.service.generation.likely import PromptLogprobs
from prefixmux_server.service.generation.track import Track


class Collected:
    """What came of one generation so far; `finished` is None when stop strings ended it.

    `read` are the prefixes that the row's lease named, each time the engine said. A beam search
    has no `tracks`.
    """

    def __init__(self, admitted: Admitted, *, streamed: bool) -> None:
        sampling = admitted.submit.sampling
        outputs = sampling.n if sampling.beams is None else 0
        codec, parameters = admitted.codec, admitted.parameters
        self.tracks = [
            Track(index, codec, parameters, streamed=streamed) for index in range(outputs)
        ]
        wanted = sampling.prompt_logprobs is not None
        self.prompt_logprobs = PromptLogprobs(codec) if wanted else None
        self.started: Started | None = None
        self.finished: Finished | None = None
        self.read: set[tuple[str, ...]] = set()
        self.first_token_at: float | None = None

    @property
    def stopped(self) -> bool:
        """Whether a stop string has ended every output."""
        return bool(self.tracks) and all(track.stop is not None for track in self.tracks)

    @property
    def generated(self) -> int:
        """Tokens of all outputs."""
        beams = self.finished.beams if self.finished else ()
        tokens = [len(track.token_ids) for track in self.tracks]
        return sum(tokens) + sum(len(beam.token_ids) for beam in beams)

    async def collect(self, generation: Generation) -> AsyncGenerator[TokenEvent, None]:
        """Every token up to the end or the first stop string of its output, whose row is freed.

        Raises the error the engine gave the request.
        """
        async for event in generation:
            if isinstance(event, TokenDelta):
                told = self._take(event, generation)
                if told is not None:
                    yield told
                if self.stopped:
                    break
            elif isinstance(event, Finished):
                self._finish(event)
            elif isinstance(event, Started):
                self.started = event
                self.read.add(event.prefixes)
            elif isinstance(event, messages.PromptLogprobs) and self.prompt_logprobs is not None:
                self.prompt_logprobs.take(event.logprobs)
        for told in self._rest():
            yield told

    def _take(self, delta: TokenDelta, generation: Generation) -> TokenEvent | None:
        if self.first_token_at is None:
            self.first_token_at = monotonic()
        track = self.tracks[delta.index]
        was_running = track.stop is None
        told = track.take(delta)
        if was_running and track.stop is not None and len(self.tracks) > 1:
            generation.abort(delta.index)
        return told

    def _finish(self, finished: Finished) -> None:
        if finished.error is not None:
            raise Relayed(finished.error.code, finished.error.message)
        self.finished = finished
        self.read.add(finished.prefixes)

    def _rest(self) -> Iterator[TokenEvent]:
        if self.finished is None and not self.stopped:
            raise EngineUnavailable("The engine ended the request unfinished; send it again.")
        for track in self.tracks:
            if (told := track.end()) is not None:
                yield told
