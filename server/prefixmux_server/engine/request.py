"""A request inside the engine, and the rows that serve it."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

from prefixmux_server.engine.beams import BeamSearch
from prefixmux_server.engine.messages import (
    EngineError,
    Finished,
    FinishReason,
    OutputEnd,
    Started,
    Submit,
    Timing,
)
from prefixmux_server.engine.prompt import Prompt
from prefixmux_server.memory.memory import RowLease
from prefixmux_server.memory.prefix import PrefixKey


@dataclass(eq=False)
class Sequence:
    """A row: its lease, its own tokens (prompt, then output), and how many have their KV stored.

    Invariant: `computed < len(tokens)`; a step runs `tokens[computed:]` or the front part of it,
    and `computed` moves only after the step has succeeded.
    """

    lease: RowLease
    tokens: list[int]
    computed: int = 0

    @property
    def pending(self) -> int:
        return len(self.tokens) - self.computed


@dataclass(eq=False)
class Request:
    """`arrived` and the other times are seconds of the engine's clock.

    It holds `leases` for all the rows it will need; `sequences` are those in use: one, until a
    beam search, whose first row runs the prompt for all, branches out. `encoded`: the encoder's
    pass is done, or there is none.
    """

    submit: Submit
    arrived: float
    encoded: bool
    keys: tuple[PrefixKey, ...] = field(init=False)
    pinned: bool = False
    load_started: float | None = None
    load_ended: float | None = None
    admitted: float | None = None
    first_token: float | None = None
    prompt: Prompt | None = None
    leases: tuple[RowLease, ...] = ()
    sequences: list[Sequence] = field(default_factory=list)
    search: BeamSearch | None = None

    def __post_init__(self) -> None:
        tenant = self.submit.tenant
        self.keys = tuple(PrefixKey(tenant, digest) for digest in self.submit.prefixes)

    @property
    def rows(self) -> int:
        """Rows of the batch that it takes."""
        return self.submit.sampling.rows

    @property
    def row(self) -> Sequence:
        assert self.sequences, "only an admitted request has a row"
        return self.sequences[0]

    @property
    def seen_prompt(self) -> tuple[int, ...]:
        """The decoder's real tokens before the output, which penalties count."""
        submit = self.submit
        return submit.decoder_ids if self.known.encoder else submit.input_ids + submit.decoder_ids

    @property
    def searched_prompt(self) -> tuple[int, ...]:
        """What a beam search takes for the prompt. The paper's code, whose lengths count it, ran
        the x before an infix elsewhere."""
        beams = self.submit.sampling.beams
        as_paper = beams is not None and beams.length_includes_prompt
        return (self.submit.decoder_ids if as_paper else ()) or self.seen_prompt

    @property
    def known(self) -> Prompt:
        assert self.prompt is not None, "a prompt is known when its prefixes are loaded"
        return self.prompt

    @property
    def runnable(self) -> int:
        """Tokens of each row that may run in one step: up to an infix, or to its end."""
        return min(self.row.pending, self.known.next_break(self.row.computed) - self.row.computed)

    @property
    def in_prompt(self) -> bool:
        return self.row.computed < len(self.known.tokens)

    @property
    def output(self) -> Seq[int]:
        return self.row.tokens[len(self.known.tokens) :]

    @property
    def generated(self) -> int:
        return len(self.row.tokens) - len(self.known.tokens)

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
        ends: tuple[OutputEnd, ...] = (),
        *,
        error: EngineError | None = None,
    ) -> Finished:
        """The end of it. What prefixes it saw is read from the row's lease."""
        found = self.search.results() if self.search is not None and error is None else ()
        return Finished(
            id=self.submit.id,
            outputs=ends,
            prefixes=self._digests(),
            prefix_tokens=self._prefix_tokens(),
            timing=self._timing(now),
            error=error,
            beams=found,
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
        return tuple(p.kv.key.digest for lease in self.leases[:1] for p in lease.prefixes)

    def _prefix_tokens(self) -> tuple[int, ...]:
        return tuple(p.kv.size for lease in self.leases[:1] for p in lease.prefixes)

    def _timing(self, now: float) -> Timing:
        def since(start: float | None, end: float | None) -> float:
            return 0.0 if start is None or end is None else end - start

        return Timing(
            queue_s=since(self.arrived, self.admitted if self.admitted is not None else now),
            prefix_load_s=since(self.load_started, self.load_ended),
            ttft_s=None if self.first_token is None else self.first_token - self.arrived,
            total_s=now - self.arrived,
        )
