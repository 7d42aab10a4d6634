"""Who runs in the next step, and on what memory. The engine asks; no model is known here."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

from prefixmux_server.engine.batch import BatchRow
from prefixmux_server.engine.beams import BeamSearch
from prefixmux_server.engine.messages import EngineError
from prefixmux_server.engine.params import SamplingParams
from prefixmux_server.engine.prompt import Prompt, prompt_of
from prefixmux_server.engine.queue import Verdict, WaitingQueue
from prefixmux_server.engine.request import Request, Sequence
from prefixmux_server.memory.memory import KVMemory, PlacedPrefix, RowLease
from prefixmux_server.memory.prefix import PrefixKey
from prefixmux_server.memory.residency import Residency, State


@dataclass(frozen=True)
class Limits:
    """`context` and `encoder_context` are the numbers of positions the model has; None: no limit.

    `max_tokens` is what a step may run of the decoder, and again of the encoder. `max_told` (None:
    no limit) are tokens of prompts that have their log-probabilities told in one step: each takes
    a row of logits as wide as the vocabulary.
    """

    max_rows: int
    max_tokens: int
    context: int | None
    encoder_context: int | None = None
    max_told: int | None = None


@dataclass
class Scheduler:
    """Owns the waiting and the running requests, and through them pins, placements and leases."""

    waiting: WaitingQueue
    memory: KVMemory
    residency: Residency
    limits: Limits
    clock: Callable[[], float]
    eos: frozenset[int] = frozenset()
    running: list[Request] = field(default_factory=list)
    refused: list[tuple[Request, EngineError]] = field(default_factory=list)

    def submit(self, request: Request) -> None:
        """Its prefixes start loading now, not when its turn comes."""
        self.waiting.push(request)
        self._prefetch()

    def admit(self) -> list[Request]:
        """Give rows to waiting requests, in the queue's order, while there is room.

        Returns those that now run; those that never can are in `take_refused`.
        """
        self._prefetch()
        before = len(self.running)
        while self._rows < self.limits.max_rows:
            if self.waiting.next_admissible(self._offer) is None:
                break
        return self.running[before:]

    def schedule(self) -> list[BatchRow]:
        """All rows that decode first, then chunks of prompts, within one budget of tokens.

        A request's encoder pass is whole and has a budget of its own; the first in the step has
        it whatever its length.
        """
        budget = encoding = self.limits.max_tokens
        telling = self.limits.max_told or budget
        rows: list[BatchRow] = []
        for request in sorted(self.running, key=lambda r: r.row.pending > 1 or not r.encoded):
            width, encoded = len(request.sequences), 0
            count = min(request.runnable, budget // width)
            if request.tells_prompt:
                count = min(count, telling)
            if not request.encoded:
                encoded = len(request.known.encoder)
                if encoded > encoding and encoding < self.limits.max_tokens:
                    continue
            if count:
                rows.append(BatchRow(request, count, encodes=bool(encoded)))
                budget -= count * width
                telling -= count if request.tells_prompt else 0
                encoding -= encoded
                self.waiting.charge(request.submit.tenant, count * width + encoded)
        return rows

    def retire(self, request: Request) -> None:
        """Take a request out, wherever it is, and give back all that it holds."""
        if request in self.running:
            self.running.remove(request)
            self.memory.release(request.leases)
            for key in request.keys:
                self.residency.unplace(key)
        else:
            self.waiting.remove(request)
        self._unpin(request)

    def take_refused(self) -> list[tuple[Request, EngineError]]:
        refused, self.refused = self.refused, []
        return refused

    def check_integrity(self) -> None:
        self.memory.check_integrity()
        self.residency.check_integrity()
        assert self._rows <= self.limits.max_rows, "more rows than allowed"
        for request in self.running:
            for lease in request.leases:
                held = tuple(prefix.kv.key for prefix in lease.prefixes)
                assert held == request.keys, "a row holds another request's prefix"
            request.check_integrity()

    @property
    def _rows(self) -> int:
        return sum(request.rows for request in self.running)

    def _prefetch(self) -> None:
        """Pin waiting requests' prefixes in order; who finds no room lets nobody overtake."""
        waiting = list(self.waiting)
        for place, request in enumerate(waiting):
            if not request.pinned and not self._pin_before(request, waiting[place + 1 :]):
                return
            self._note_loading(request)

    def _pin_before(self, request: Request, behind: Seq[Request]) -> bool:
        """Who came later and is more urgent may find its room pinned by those behind it."""
        holders = [other for other in behind if other.pinned]
        while not self._pin(request):
            if not holders:
                return False
            self._unpin(holders.pop())
        return True

    def _pin(self, request: Request) -> bool:
        for done, key in enumerate(request.keys):
            if not self.residency.pin(key):
                for other in request.keys[:done]:
                    self.residency.unpin(other)
                return False
        request.pinned = True
        return True

    def _note_loading(self, request: Request) -> None:
        """When its prefixes were being read, as far as it had to wait for that."""
        loading = self._loading(request)
        if loading and request.load_started is None:
            request.load_started = self.clock()
        if not loading and request.load_ended is None:
            request.load_ended = self.clock()

    def _loading(self, request: Request) -> bool:
        return any(self.residency.state(key) is State.LOADING for key in request.keys)

    def _unpin(self, request: Request) -> None:
        if request.pinned:
            for key in request.keys:
                self.residency.unpin(key)
            request.pinned = False

    def _offer(self, request: Request) -> Verdict:
        error = self._impossible(request)
        if error is not None:
            return self._refuse(request, error)
        if not request.pinned:
            return Verdict.NO_ROOM
        if self._loading(request):
            return Verdict.NOT_YET
        error = self._unfit(request)
        if error is not None:
            return self._refuse(request, error)
        if self._rows + request.rows > self.limits.max_rows:
            return Verdict.NO_ROOM
        return self._give_rows(request)

    def _refuse(self, request: Request, error: EngineError) -> Verdict:
        self._unpin(request)
        self.refused.append((request, error))
        return Verdict.TAKEN

    def _impossible(self, request: Request) -> EngineError | None:
        """Why this request can never run, as far as is known before its prefixes are loaded."""
        begun = request.submit.input_ids and (request.encoded or request.submit.decoder_ids)
        sampling = request.submit.sampling
        asked = sampling.max_new_tokens > 0 or (
            sampling.prompt_logprobs is not None and sampling.beams is None
        )
        if not begun or not asked:
            return EngineError("invalid_request", "a request needs a token, and asks for one")
        for limit, unit in ((self.limits.max_rows, "rows"), (self.limits.max_tokens, "tokens")):
            if request.rows > limit:
                return EngineError(
                    "invalid_request",
                    f"{request.rows} {_rows_of(sampling)} are more {unit} than a batch has; ask "
                    f"for fewer, or start the server with a larger --max-batch-{unit}",
                )
        for key in request.keys:
            failure = self.residency.failure(key)
            if failure is not None:
                return EngineError(failure.code, failure.message)
        return self._oversized(request.keys)

    def _oversized(self, keys: Seq[PrefixKey]) -> EngineError | None:
        """Of one prefix its owner's upload is at fault, of several the request."""
        if not self.residency.exceeds_budget(keys):
            return None
        if any(self.residency.exceeds_budget([key]) for key in keys):
            return EngineError(
                "prefix_unavailable",
                "this task's prefix is larger than all memory for prefixes; "
                "start the server with a larger --prefix-host-bytes",
                reason="too_long",
            )
        return EngineError(
            "invalid_request",
            "these prefixes are together larger than all memory for prefixes; compose fewer, or "
            "start the server with a larger --prefix-host-bytes",
        )

    def _unfit(self, request: Request) -> EngineError | None:
        """Why it can never run, now that its prefixes are known; else its prompt is made."""
        prefixes = [self.residency.get(key) for key in request.keys]
        try:
            prompt = prompt_of(request.submit, prefixes, encodes=not request.encoded)
        except ValueError as refusal:
            return EngineError("invalid_request", str(refusal))
        request.prompt, sampling = prompt, request.submit.sampling
        needs = request.needs
        shift = sum(kv.offset() for kv in prefixes)
        error = self._too_long(prompt, shift + needs.own)
        if error is None and not (
            self.memory.fits(prefixes, needs) and self.residency.fits(prefixes)
        ):
            fewer = f", or ask for fewer {_rows_of(sampling)}" if needs.rows > 1 else ""
            return EngineError(
                "prompt_too_long",
                f"prefix, input and max_new_tokens need more tokens of KV memory than there are "
                f"({self.memory.capacity_tokens}): shorten them{fewer}, or start the server with "
                "a larger --kv-tokens",
            )
        return error

    def _too_long(self, prompt: Prompt, last: int) -> EngineError | None:
        limits = self.limits
        if limits.context is not None and last > limits.context:
            return EngineError(
                "prompt_too_long",
                f"prefix, input and max_new_tokens need {last} positions, "
                f"the model has {limits.context}: shorten the input or max_new_tokens",
            )
        if limits.encoder_context is not None and len(prompt.encoder) > limits.encoder_context:
            return EngineError(
                "prompt_too_long",
                f"prefix and input have {len(prompt.encoder)} tokens, the model's encoder has "
                f"{limits.encoder_context} positions: shorten the input",
            )
        return None

    def _give_rows(self, request: Request) -> Verdict:
        leases = self._lease(request)
        if leases is None:
            return Verdict.NO_ROOM
        request.leases = leases
        runs = request.known.tokens[: request.needs.own]
        request.sequences = [Sequence(leases[0], list(runs))]
        sampling = request.submit.sampling
        if sampling.beams is not None:
            request.search = BeamSearch(sampling, request.searched_prompt, self.eos)
        request.admitted = self.clock()
        self.running.append(request)
        return Verdict.TAKEN

    def _lease(self, request: Request) -> tuple[RowLease, ...] | None:
        """Place its prefixes and reserve its tokens, or take nothing at all."""
        needs = request.needs
        placed: list[PlacedPrefix] = []
        for key in request.keys:
            prefix = self.residency.place(key)
            if prefix is None:
                break
            placed.append(prefix)
        if len(placed) == len(request.keys):
            while True:
                leases = self.memory.admit(placed, needs)
                if leases is not None:
                    return leases
                if not self.residency.reclaim():
                    break
        for prefix in placed:
            self.residency.unplace(prefix.kv.key)
        return None


def _rows_of(sampling: SamplingParams) -> str:
    """What a client calls the rows that it asked for."""
    return "outputs" if sampling.beams is None else "beams"
