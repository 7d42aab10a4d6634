"""A request inside the engine, and the rows that serve it."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

from prefixmux_server.engine.messages import (
    EngineError,
    Finished,
    OutputEnd,
    Started,
    Submit,
    Timing,
)
from prefixmux_server.engine.prompt import Prompt
from prefixmux_server.engine.sampling.beams import BeamSearch
from prefixmux_server.memory.memory import RowLease, RowNeeds
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

    `open` are the outputs that go on, by index, and `ends` how others ended by themselves; a beam
    search has one. It holds `leases` for all the rows it will need; `sequences` are those in use:
    one, whose row runs the prompt for all, until the first token; then one for each open output,
    in their order, or for each beam. They advance together. `encoded`: the encoder's pass is done,
    or there is none.
    """

    submit: Submit
    arrived: float
    encoded: bool
    keys: tuple[PrefixKey, ...] = field(init=False)
    open: list[int] = field(init=False)
    ends: list[OutputEnd] = field(default_factory=list)
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
        tenant, sampling = self.submit.tenant, self.submit.sampling
        self.keys = tuple(PrefixKey(tenant, digest) for digest in self.submit.prefixes)
        self.open = list(range(sampling.n if sampling.beams is None else 1))

    @property
    def rows(self) -> int:
        """Rows of the batch that it takes."""
        sampling = self.submit.sampling
        return len(self.open) if sampling.beams is None else sampling.rows

    @property
    def needs(self) -> RowNeeds:
        return self.known.needs(self.submit.sampling.max_new_tokens, self.rows)

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
    def tells_prompt(self) -> bool:
        """Whether what it runs next has log-probabilities that were asked for."""
        return self.submit.sampling.prompt_logprobs is not None and self.in_prompt

    @property
    def parted(self) -> bool:
        """Whether each open output has a row of its own."""
        return len(self.sequences) == len(self.open)

    def output(self, number: int) -> Seq[int]:
        """What sequence `number` has said so far."""
        return self.sequences[number].tokens[len(self.known.tokens) :]

    def end_of(self, index: int, tokens: Seq[int], eos: frozenset[int]) -> OutputEnd | None:
        """How the last of its row's `tokens` ended an output, if it did."""
        sampling, last = self.submit.sampling, tokens[-1]
        generated = len(tokens) - len(self.known.tokens)
        if generated >= sampling.min_new_tokens:
            if last in sampling.stop_token_ids:
                return OutputEnd(index, "stop", last)
            if last in eos and not sampling.ignore_eos:
                return OutputEnd(index, "eos")
        return OutputEnd(index, "length") if generated >= sampling.max_new_tokens else None

    def close(self, index: int) -> RowLease | None:
        """An output goes on no more. Returns the lease that the others have no use for; None: it
        was the last, or there are no leases yet."""
        place = self.open.index(index)
        parted = self.parted
        self.open.remove(index)
        if not self.leases or not self.open:
            return None
        if parted:
            del self.sequences[place]
        else:
            place = len(self.leases) - 1
        lease = self.leases[place]
        self.leases = self.leases[:place] + self.leases[place + 1 :]
        return lease

    def finished(self, now: float, *, error: EngineError | None = None) -> Finished:
        """The end of it. What prefixes it saw is read from the row's lease."""
        found = self.search.results() if self.search is not None and error is None else ()
        ends = sorted(self.ends, key=lambda end: end.index)
        return Finished(
            id=self.submit.id,
            outputs=tuple(ends) if error is None else (),
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

    def check_integrity(self) -> None:
        """Of a request that runs."""
        assert self.open, "a request runs for no output"
        assert self.open == sorted(set(self.open)), "outputs are out of order"
        assert not {end.index for end in self.ends} & set(self.open), "an output that ended goes on"
        assert len(self.leases) == self.rows, "rows are held for nothing, or missing"
        assert all(s.lease is lease for s, lease in zip(self.sequences, self.leases, strict=False))
        assert len({(s.computed, len(s.tokens)) for s in self.sequences}) == 1, "a row is behind"
        assert self.row.pending >= 1, "a row has nothing to run"
        if self.search is None:
            assert self.parted or (self.in_prompt and len(self.sequences) == 1), "rows are mixed up"

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
