"""Where the time of finished requests went, for those of the last ten thousand.

Knows outcomes and traces; never text or token ids.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from pydantic import TypeAdapter

from prefixmux_server.errors import NotFound
from prefixmux_server.service.generation.outcome import Outcome
from prefixmux_server.service.telemetry.flight import Phase, Spread, Trace

KEPT = 10_000


@dataclass(frozen=True)
class SpreadView:
    """Over the steps of a phase; null without any."""

    min: int | None
    mean: float | None
    max: int | None


@dataclass(frozen=True)
class PhaseView:
    """The request's `steps` in one phase: `tokens` it ran in them, `seconds` from the first's
    beginning to the last's end, `step_seconds` of forward passes in that time, and how many
    `rows` and different `tasks` the batches held, its own with them."""

    steps: int
    tokens: int
    seconds: float
    step_seconds: float
    rows: SpreadView
    tasks: SpreadView


@dataclass(frozen=True)
class Timeline:
    """One finished request, in seconds: `total_s` = `queue_s` + the phases' `seconds` + `other_s`,
    which is tokenising, the way to the engine and back, and waiting between steps.

    `prefix_load_s` is the part of `queue_s` in which a prefix was loading. `outcome` is `ok`,
    `cancelled` or an error's code. `preemptions` is always 0: memory is reserved for the whole
    answer, so nothing that runs is ever preempted. Without a row only `total_s` is known.
    """

    id: str
    request_id: str
    task_id: str | None
    version: int | None
    outcome: str
    started_at: float
    total_s: float
    queue_s: float
    prefix_load_s: float
    ttft_s: float | None
    prefill: PhaseView
    decode: PhaseView
    other_s: float
    prompt_tokens: int
    prefix_tokens: int
    generated_tokens: int
    encoder_tokens: int
    preemptions: int = 0


class Timelines:
    """The oldest is forgotten first. Of several requests with one `x-request-id` the last that
    ended is found by it, each by its own id.

    Kept as bytes: ten thousand trees of objects would make the garbage collector's pauses long.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._codec = TypeAdapter(Timeline)
        self._by_id: OrderedDict[str, tuple[str, str, bytes]] = OrderedDict()
        self._named: dict[tuple[str, str], str] = {}

    def ended(self, outcome: Outcome, trace: Trace | None) -> None:
        """Of one that was never admitted there is nothing to tell."""
        if trace is None:
            return
        line = self._codec.dump_json(_timeline(outcome, trace))
        self._by_id[outcome.id] = outcome.tenant, outcome.request_id, line
        self._named[outcome.tenant, outcome.request_id] = outcome.id
        if len(self._by_id) > self._kept:
            self._forget_oldest()

    def find(self, tenant: str, id: str) -> Timeline:
        """By the engine's id or by `x-request-id`. Raises `NotFound`, for another tenant's too."""
        for known in (id, self._named.get((tenant, id), "")):
            owner, _, line = self._by_id.get(known, ("", "", b""))
            if line and owner == tenant:
                return self._codec.validate_json(line)
        raise NotFound(f"No such request is among the last {self._kept} that have ended.")

    def _forget_oldest(self) -> None:
        id, (tenant, request_id, _) = self._by_id.popitem(last=False)
        if self._named.get((tenant, request_id)) == id:
            del self._named[tenant, request_id]


def _timeline(outcome: Outcome, trace: Trace) -> Timeline:
    timing, prefill, decode = outcome.timing, _phase(trace.prefill), _phase(trace.decode)
    queue_s = timing.queue_s if timing else 0.0
    known = queue_s + prefill.seconds + decode.seconds
    return Timeline(
        id=outcome.id,
        request_id=outcome.request_id,
        task_id=outcome.task_id,
        version=outcome.version,
        outcome=outcome.code,
        started_at=outcome.started,
        total_s=outcome.seconds,
        queue_s=queue_s,
        prefix_load_s=timing.prefix_load_s if timing else 0.0,
        ttft_s=timing.ttft_s if timing and outcome.generated_tokens else None,
        prefill=prefill,
        decode=decode,
        other_s=max(outcome.seconds - known, 0.0),
        prompt_tokens=outcome.prompt_tokens,
        prefix_tokens=outcome.prefix_tokens,
        generated_tokens=outcome.generated_tokens,
        encoder_tokens=trace.encoder_tokens,
    )


def _phase(phase: Phase) -> PhaseView:
    return PhaseView(
        steps=phase.steps,
        tokens=phase.tokens,
        seconds=phase.ended - phase.began,
        step_seconds=phase.seconds,
        rows=_spread(phase.rows, phase.steps),
        tasks=_spread(phase.tasks, phase.steps),
    )


def _spread(spread: Spread, steps: int) -> SpreadView:
    if not steps:
        return SpreadView(None, None, None)
    return SpreadView(spread.least, spread.total / steps, spread.most)
