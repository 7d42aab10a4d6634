"""Reading one generation to its end: where a stop string cuts it, and what the answer says.

Knows the engine's messages and the answer's shape; nothing of HTTP or of how a request came.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from prefixmux_server.engine.front import Generation
from prefixmux_server.engine.messages import Finished, FinishReason, Started, TokenDelta
from prefixmux_server.errors import EngineUnavailable, InternalError, Relayed
from prefixmux_server.service.admission import Admitted, monotonic
from prefixmux_server.service.answer import Answer, AnswerTiming, Output, Usage, UsedPrefix
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
        elif collected.match is None and _take(collected, event, watch):
            generation.abort()
    if collected.finished is None and collected.match is None:
        raise EngineUnavailable("The engine ended the request unfinished; send it again.")
    return collected


def _watch(admitted: Admitted) -> StopWatch | None:
    parameters = admitted.request.parameters
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


def answer(admitted: Admitted, collected: Collected, tenant: str) -> Answer:
    """Raises `InternalError` if the row read other prefixes than the request resolved to."""
    submit, version = admitted.submit, admitted.version
    prefixes = _prefixes(admitted, collected)
    return Answer(
        id=submit.id,
        tenant=tenant,
        task_id=version.task_id if version else None,
        version=version.version if version else None,
        prefix_digest=prefixes[0].digest if prefixes else None,
        prefixes=prefixes,
        model=admitted.model,
        outputs=[_output(admitted, collected)],
        prompt_logprobs=None,
        seed=submit.sampling.seed,
        usage=Usage(
            prompt_tokens=len(submit.input_ids),
            prefix_tokens=sum(prefix.tokens for prefix in prefixes),
            generated_tokens=len(collected.token_ids),
        ),
        timing=_timing(admitted, collected),
    )


def _prefixes(admitted: Admitted, collected: Collected) -> list[UsedPrefix]:
    version, expected = admitted.version, admitted.submit.prefixes
    row = collected.finished or collected.started
    if row is None or collected.read != {expected}:
        raise InternalError("The request ran with another prefix than asked for; it was dropped.")
    if version is None:
        return []
    return [
        UsedPrefix(version.task_id, version.version, digest, tokens)
        for digest, tokens in zip(row.prefixes, row.prefix_tokens, strict=True)
    ]


def _output(admitted: Admitted, collected: Collected) -> Output:
    reason, stop = _ending(collected)
    return Output(0, _text(admitted.codec, collected), collected.token_ids, reason, stop)


def _ending(collected: Collected) -> tuple[FinishReason, str | int | None]:
    if collected.match is not None:
        return "stop", collected.match.stop
    if collected.finished is None or collected.finished.reason is None:
        raise InternalError("The request ended without a reason.")
    return collected.finished.reason, collected.finished.stop


def _text(codec: TextCodec | None, collected: Collected) -> str | None:
    if collected.match is not None:
        return collected.match.text
    return None if codec is None else codec.decode(collected.token_ids)


def _timing(admitted: Admitted, collected: Collected) -> AnswerTiming:
    """Waiting is the engine's own account, the rest is what the caller saw."""
    total = monotonic() - admitted.arrived
    first = collected.first_token_at
    ttft = total if first is None else first - admitted.arrived
    waited = collected.finished.timing if collected.finished else collected.started
    if waited is None:
        raise InternalError("The request ended without a row.")
    return AnswerTiming(waited.queue_s, waited.prefix_load_s, ttft, total)
