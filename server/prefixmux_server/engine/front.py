"""What the HTTP process sees of the engine: the protocols that the service is written against.

`engine/pipes/client.py` implements them over pipes; tests implement them in a few lines. Nothing
here knows of HTTP, of task names, of text or of torch.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from prefixmux_server.engine.messages import (
    EngineError,
    Finished,
    PromptLogprobs,
    Ready,
    ResidencyState,
    Started,
    StepOutput,
    Submit,
    TokenDelta,
)
from prefixmux_server.engine.record import StepRecord

GenerationEvent: TypeAlias = Started | PromptLogprobs | TokenDelta | Finished
Observer: TypeAlias = Callable[[StepOutput], None]


@dataclass(frozen=True)
class EngineHealth:
    """Whether a request would be served now. `reason` is a short word or two for operators:
    `ready`, `starting`, `restarting`, `unresponsive`, `stopped`. `restarts`: engines that were
    replaced so far."""

    ok: bool
    reason: str
    restarts: int = 0


class Generation(Protocol):
    """One submitted request. Iterated by one task; tokens come in the order they were sampled."""

    def __aiter__(self) -> AsyncIterator[GenerationEvent]:
        """Yields `Started` when it has its row, what was asked about the prompt, deltas, then
        exactly one `Finished`, then ends.

        A request that was preempted starts again; one refused before it ran never starts.

        After `abort` it ends without a `Finished`. When the engine dies it yields a `Finished`
        whose error code is `engine_unavailable`.
        """
        ...

    def abort(self, index: int | None = None) -> None:
        """Free the request's rows within two steps, or the one of output `index`: the others go
        on, and `Finished` will not name it. Idempotent, and harmless once finished."""
        ...


class EngineFront(Protocol):
    """The engine as seen from one event loop; no method blocks it."""

    @property
    def ready(self) -> Ready | None:
        """The last model announced; None until it is loaded and while the engine restarts."""
        ...

    @property
    def health(self) -> EngineHealth: ...

    def submit(self, submit: Submit) -> Generation:
        """Raises `engine.errors.EngineUnavailable` or, with a full queue, `Overloaded`."""
        ...

    def has_room(self, tenant: str) -> bool:
        """Whether `submit` would find a place now: it is not worth preparing a request else."""
        ...

    async def probe(
        self, tenant: str, prefixes: tuple[str, ...], decoder_ids: tuple[int, ...] = ()
    ) -> EngineError | None:
        """The trial forward of what is to be stored; `decoder_ids` as in `Submit`. None: finite
        logits. Never raises: an engine that is down answers `engine_unavailable`."""
        ...

    def residency(self, tenant: str, digest: str) -> ResidencyState:
        """Where the prefix was after the last step; `disk` for one never asked for."""
        ...

    def pin(self, tenant: str, digest: str, *, pinned: bool) -> None:
        """Keep a prefix loaded from now on, or no longer; it survives the engine's restarts."""
        ...

    def is_pinned(self, tenant: str, digest: str) -> bool: ...

    def observe(self, observer: Observer) -> None:
        """Call it with every step's output, on the event loop; it must be quick, never raise."""
        ...

    def steps(self, since: int) -> Sequence[StepRecord]:
        """The last records with `step > since`, oldest first; a bounded number is kept."""
        ...
