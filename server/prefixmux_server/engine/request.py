"""A request inside the engine, and the row that serves it."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

from prefixmux_server.engine.messages import (
    EngineError,
    Finished,
    FinishReason,
    Started,
    Submit,
    Timing,
)
from prefixmux_server.memory.layout import Lease, Segment
from prefixmux_server.memory.prefix import PrefixKey


@dataclass(eq=False)
class Sequence:
    """A row: its lease, its own tokens (prompt, then output), and how many have their KV stored.

    Invariant: `computed < len(tokens)`; a step runs `tokens[computed:]` or the front part of it,
    and `computed` moves only after the step has succeeded.
    """

    lease: Lease
    tokens: list[int]
    computed: int = 0

    @property
    def pending(self) -> int:
        return len(self.tokens) - self.computed


@dataclass(eq=False)
class Request:
    """`arrived` and the other times are seconds of the engine's clock."""

    submit: Submit
    arrived: float
    keys: tuple[PrefixKey, ...] = field(init=False)
    pinned: bool = False
    load_started: float | None = None
    load_ended: float | None = None
    admitted: float | None = None
    first_token: float | None = None
    sequence: Sequence | None = None

    def __post_init__(self) -> None:
        tenant = self.submit.tenant
        self.keys = tuple(PrefixKey(tenant, digest) for digest in self.submit.prefixes)

    @property
    def prompt_tokens(self) -> int:
        return len(self.submit.input_ids)

    @property
    def reserve(self) -> int:
        """Own tokens whose KV is ever stored: the last output token's is not."""
        return self.prompt_tokens + self.submit.sampling.max_new_tokens - 1

    @property
    def row(self) -> Sequence:
        assert self.sequence is not None, "only an admitted request has a row"
        return self.sequence

    @property
    def output(self) -> Seq[int]:
        return self.row.tokens[self.prompt_tokens :]

    @property
    def generated(self) -> int:
        return len(self.row.tokens) - self.prompt_tokens

    def finish_reason(self, eos: frozenset[int]) -> tuple[FinishReason | None, int | None]:
        """Why the last token ended it, and the stop id if one did; `(None, None)`: it goes on."""
        sampling = self.submit.sampling
        last = self.row.tokens[-1]
        if self.generated >= sampling.min_new_tokens:
            if last in sampling.stop_token_ids:
                return "stop", last
            if last in eos and not sampling.ignore_eos:
                return "eos", None
        return ("length", None) if self.generated >= sampling.max_new_tokens else (None, None)

    def finished(
        self,
        now: float,
        reason: FinishReason | None,
        *,
        stop: int | None = None,
        error: EngineError | None = None,
    ) -> Finished:
        """The end of it. What prefixes it saw is read from the row's lease."""
        return Finished(
            id=self.submit.id,
            reason=reason,
            prefixes=self._digests(),
            prefix_tokens=self._prefix_tokens(),
            timing=self._timing(now),
            stop=stop,
            error=error,
        )

    def started(self) -> Started:
        """It has its row now."""
        timing = self._timing(self.arrived)
        return Started(
            id=self.submit.id,
            prefixes=self._digests(),
            prefix_tokens=self._prefix_tokens(),
            queue_s=timing.queue_s,
            prefix_load_s=timing.prefix_load_s,
        )

    def _digests(self) -> tuple[str, ...]:
        return tuple(segment.key.digest for segment in self._segments())

    def _prefix_tokens(self) -> tuple[int, ...]:
        return tuple(segment.tokens for segment in self._segments())

    def _segments(self) -> tuple[Segment, ...]:
        return () if self.sequence is None else self.sequence.lease.segments

    def _timing(self, now: float) -> Timing:
        def since(start: float | None, end: float | None) -> float:
            return 0.0 if start is None or end is None else end - start

        return Timing(
            queue_s=since(self.arrived, self.admitted if self.admitted is not None else now),
            prefix_load_s=since(self.load_started, self.load_ended),
            ttft_s=None if self.first_token is None else self.first_token - self.arrived,
            total_s=now - self.arrived,
        )
