"""How requests grow by a step that has succeeded: KV that is stored counts, rows part, gain tokens
and branch, and outputs end. It knows memory and rows, not who runs next."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from torch import Tensor

from prefixmux_server.engine.batch import BatchRow
from prefixmux_server.engine.messages import EngineError, OutputEnd, TokenDelta
from prefixmux_server.engine.request import Request, Sequence
from prefixmux_server.engine.sampling.beams import NonFiniteLogits
from prefixmux_server.engine.sampling.choice import Choice
from prefixmux_server.memory.memory import KVMemory, RowLease

NOT_FINITE = EngineError(
    "non_finite_output", "the model's output for this request is not finite; check its prefix"
)


class Growth:
    """A request that has no open output left is over, and still holds the lease of its last row:
    what it saw is read from there."""

    def __init__(self, memory: KVMemory, eos: frozenset[int]) -> None:
        self._memory = memory
        self._eos = eos

    def commit(self, row: BatchRow) -> None:
        """KV that is stored counts from now on; an infix gets what is added to it, once."""
        request = row.request
        request.encoded = True
        for sequence in request.sequences:
            sequence.computed += row.count
        virtual = request.known.virtual
        if virtual is None or virtual.delta is None or request.row.computed != virtual.stop:
            return
        self._memory.add(request.row.lease, virtual.start, virtual.delta)

    def speak(self, request: Request, choices: Seq[Choice]) -> list[TokenDelta]:
        """Each open output gains its token; one that has none ends as it is, and all of them do
        where nothing was asked for but what the prompt says."""
        deltas: list[TokenDelta] = []
        if not choices:
            for index in tuple(request.open):
                self._end(request, OutputEnd(index, "length"))
            return deltas
        self._part(request)
        rows = dict(zip(request.open, request.sequences, strict=True))
        for choice in choices:
            index, token = choice.index, choice.token
            if token is None:
                self._end(request, OutputEnd(index, "length"))
                continue
            deltas.append(TokenDelta(request.submit.id, (token,), index, choice.logprobs))
            rows[index].tokens.append(token)
            end = request.end_of(index, rows[index].tokens, self._eos)
            if end is not None:
                self._end(request, end)
        return deltas

    def branch(self, request: Request, logits: Tensor) -> EngineError | None:
        """One step of a beam search: each row goes on from the row that its parent was."""
        assert request.search is not None
        try:
            step = request.search.advance(logits)
        except NonFiniteLogits:
            return NOT_FINITE
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this request's alone
            message = f"this request's beam search failed ({type(error).__name__})"
            return EngineError("internal_error", message)
        if step is None:
            self._end(request, OutputEnd(0, request.search.results()[0].reason))
            return None
        parents = [request.sequences[parent] for parent in step.parents]
        leases = request.leases[: len(parents)]
        self._carry_over(request, leases, parents)
        request.sequences = [
            Sequence(lease, [*parent.tokens, token], parent.computed)
            for lease, parent, token in zip(leases, parents, step.tokens, strict=True)
        ]
        return None

    def drop(self, request: Request, index: int) -> None:
        """An open output goes on no more; its row is given back unless it was the last."""
        lease = request.close(index)
        if lease is not None:
            self._memory.drop(lease)

    def _end(self, request: Request, end: OutputEnd) -> None:
        request.ends.append(end)
        self.drop(request, end.index)

    def _part(self, request: Request) -> None:
        """From the first token on each output goes its own way; all of them have the prompt."""
        if request.parted:
            return
        first = request.row
        self._memory.fork(request.leases, range(first.computed))
        request.sequences = [
            Sequence(lease, list(first.tokens), first.computed) for lease in request.leases
        ]

    def _carry_over(
        self, request: Request, leases: tuple[RowLease, ...], parents: list[Sequence]
    ) -> None:
        """The prompt goes to all rows once, and after that to each what its parent has made."""
        prompt, computed = len(request.known.tokens), request.row.computed
        if computed == prompt:
            self._memory.fork(request.leases, range(prompt))
        else:
            sources = [parent.lease for parent in parents]
            self._memory.copy(leases, sources, range(prompt, computed))
