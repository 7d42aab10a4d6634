"""Outcomes and steps as the service and the engine tell them."""

from __future__ import annotations

from typing import Any

from prefixmux_server.engine.messages import (
    Finished,
    FinishReason,
    OutputEnd,
    Started,
    StepOutput,
    Timing,
)
from prefixmux_server.engine.record import RowRecord, StepRecord
from prefixmux_server.service.generation.answer import AnswerTiming
from prefixmux_server.service.generation.outcome import Outcome

DIGEST = "sha256:" + "a" * 64


def outcome(id: str = "one", **changes: Any) -> Outcome:
    """Of a request that was answered."""
    fields: dict[str, Any] = {
        "id": id,
        "request_id": f"x-{id}",
        "tenant": "default",
        "key_id": None,
        "task_id": "e2e",
        "version": 1,
        "digests": (DIGEST,),
        "prompt_tokens": 7,
        "prefix_tokens": 3,
        "generated_tokens": 5,
        "code": "ok",
        "started": 1000.0,
        "seconds": 2.0,
        "timing": AnswerTiming(queue_s=0.25, prefix_load_s=0.125, ttft_s=0.5, total_s=2.0),
    }
    return Outcome(**(fields | changes))


def started(*ids: str) -> StepOutput:
    return StepOutput(None, started=tuple(Started(id, (DIGEST,), (3,), 0.25, 0.125) for id in ids))


def finished(id: str, reason: FinishReason) -> StepOutput:
    end = Finished(id, (OutputEnd(0, reason),), (), (), Timing(0.0, 0.0, None, 1.0))
    return StepOutput(None, finished=(end,))


def step(number: int, *rows: RowRecord, **told: Any) -> StepOutput:
    """A tenth of a second long, a second after the one before."""
    return StepOutput(StepRecord(number, rows, 2, 0.1, started=float(number), **told))


def row(id: str, tokens: int = 1) -> RowRecord:
    """Of a prompt's tokens, or one that was made."""
    return RowRecord(id, "prefill" if tokens > 1 else "decode", tokens, 3)
