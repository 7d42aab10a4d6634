"""From what a generation gave to its answer.

Everything said about prefixes is what the engine read from the row's lease; names and versions
are those that the request was admitted with.
"""

from __future__ import annotations

from prefixmux_server.engine.messages import BeamOutput, FinishReason, OutputEnd
from prefixmux_server.errors import InternalError
from prefixmux_server.service.generation.admission import Admitted, monotonic
from prefixmux_server.service.generation.answer import (
    Answer,
    AnswerTiming,
    Output,
    Usage,
    UsedPrefix,
)
from prefixmux_server.service.generation.collect import Collected
from prefixmux_server.service.generation.track import Track
from prefixmux_server.service.text.text import TextCodec
from prefixmux_store.names import joint_digest


def answer(admitted: Admitted, collected: Collected, tenant: str) -> Answer:
    """Raises `InternalError` if the row read other prefixes than the request resolved to."""
    submit, target = admitted.submit, admitted.target
    prefixes = prefixes_read(admitted, collected)
    outputs = _outputs(admitted, collected)
    return Answer(
        id=submit.id,
        tenant=tenant,
        task_id=target.task_id,
        version=target.version,
        prefix_digest=joint_digest([used.digest for used in prefixes]) if prefixes else None,
        prefixes=prefixes,
        model=admitted.model,
        outputs=outputs,
        prompt_logprobs=collected.prompt_logprobs,
        seed=submit.sampling.seed,
        usage=Usage(
            prompt_tokens=admitted.prompt_tokens,
            prefix_tokens=sum(used.tokens for used in prefixes),
            generated_tokens=collected.generated,
        ),
        timing=timing(admitted, collected),
    )


def prefixes_read(admitted: Admitted, collected: Collected) -> list[UsedPrefix]:
    row = collected.finished or collected.started
    if row is None or collected.read != {admitted.submit.prefixes}:
        raise InternalError("The request ran with another prefix than asked for; it was dropped.")
    read = zip(admitted.target.parts, row.prefixes, row.prefix_tokens, strict=True)
    return [UsedPrefix(part.task_id, part.version, digest, tokens) for part, digest, tokens in read]


def _outputs(admitted: Admitted, collected: Collected) -> list[Output]:
    beams = admitted.submit.sampling.beams
    if beams is None:
        ends = {end.index: end for end in collected.finished.outputs} if collected.finished else {}
        return [_sequence(track, ends.get(track.index)) for track in collected.tracks]
    found = collected.finished.beams if collected.finished else ()
    # Fewer, where so many different sequences do not exist.
    if not 1 <= len(found) <= beams.num_return:
        raise InternalError("The search ended without beams, or with more than asked for.")
    return [_beam(admitted.codec, index, beam) for index, beam in enumerate(found)]


def _beam(codec: TextCodec | None, index: int, beam: BeamOutput) -> Output:
    token_ids = list(beam.token_ids)
    stop = token_ids[-1] if beam.reason == "stop" else None
    return Output(index, _decoded(codec, token_ids), token_ids, beam.reason, stop, beam.score)


def _sequence(track: Track, end: OutputEnd | None) -> Output:
    if track.stop is not None:
        reason: FinishReason = "stop"
        stop: str | int | None = track.stop
    elif end is not None:
        reason, stop = end.reason, end.stop
    else:
        raise InternalError("An output ended without a reason.")
    text, token_ids = track.text(), track.token_ids
    return Output(track.index, text, token_ids, reason, stop, logprobs=track.logprobs)


def _decoded(codec: TextCodec | None, token_ids: list[int]) -> str | None:
    return None if codec is None else codec.decode(token_ids)


def timing(admitted: Admitted, collected: Collected) -> AnswerTiming:
    """Waiting is the engine's own account, the rest is what the caller saw."""
    total = monotonic() - admitted.arrived
    first = collected.first_token_at
    ttft = total if first is None else first - admitted.arrived
    waited = collected.finished.timing if collected.finished else collected.started
    if waited is None:
        raise InternalError("The request ended without a row.")
    return AnswerTiming(waited.queue_s, waited.prefix_load_s, ttft, total)
