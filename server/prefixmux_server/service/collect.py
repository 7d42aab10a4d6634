"""Reading one generation to its end, or to where a stop string cuts it.

Knows the engine's messages; what the answer says of it is `assemble.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from prefixmux_server.engine.front import Generation
from prefixmux_server.engine.messages import Finished, Started, TokenDelta
from prefixmux_server.errors import EngineUnavailable, Relayed
from prefixmux_server.service.admission import Admitted, monotonic
from prefixmux_server.service.stops import StopFinder, StopMatch
from prefixmux_server.service.text import Detokenizer, TextCodec


@dataclass
class Collected:
    """What came of one generation so far; `finished` is None when a stop string ended it.

    `read` are the prefixes that the row's lease named, each time the engine said.
    """

    token_ids: list[int] = field(default_factory=list)
    match: StopMatch | None = None
    started: Started | None = None
    finished: Finished | None = None
    read: set[tuple[str, ...]] = field(default_factory=set)
    first_token_at: float | None = None


class StopWatch:
    """Looks at each new token of one output; ends it at the first honoured stop string."""

    def __init__(self, codec: TextCodec, stops: Iterable[str], min_new_tokens: int) -> None:
        self._detokenizer = Detokenizer(codec)
        self._finder = StopFinder(tuple(stops))
        self._min_new_tokens = min_new_tokens
        self._count = 0

    def push(self, token_id: int) -> StopMatch | None:
        self._count += 1
        piece = self._detokenizer.push(token_id)
        return self._finder.push(piece, honoured=self._count >= self._min_new_tokens)


async def collect(generation: Generation, admitted: Admitted) -> Collected:
    """Every token up to the end or the first stop string; the row is freed in that case.

    Raises the error the engine gave the request.
    """
    collected = Collected()
    watch = _watch(admitted)
    async for event in generation:
        if isinstance(event, Finished):
            if event.error is not None:
                raise Relayed(event.error.code, event.error.message)
            collected.finished = event
            collected.read.add(event.prefixes)
        elif isinstance(event, Started):
            collected.started = event
            collected.read.add(event.prefixes)
        elif not isinstance(event, TokenDelta):
            continue
        elif collected.match is None and _take(collected, event, watch):
            generation.abort()
    if collected.finished is None and collected.match is None:
        raise EngineUnavailable("The engine ended the request unfinished; send it again.")
    return collected


def _watch(admitted: Admitted) -> StopWatch | None:
    parameters = admitted.parameters
    if not parameters.stop or admitted.codec is None:
        return None
    return StopWatch(admitted.codec, parameters.stop, parameters.min_new_tokens)


def _take(collected: Collected, delta: TokenDelta, watch: StopWatch | None) -> bool:
    """Whether a stop string ended the output; tokens behind it are dropped."""
    if collected.first_token_at is None:
        collected.first_token_at = monotonic()
    for token_id in delta.token_ids:
        collected.token_ids.append(token_id)
        if watch is not None and (match := watch.push(token_id)) is not None:
            collected.match = match
            return True
    return False
