"""What the HTTP process and the engine process say to each other.

Frozen dataclasses with a fixed schema; the codec in `wire.py` turns them into JSON bytes, so no
client data is ever pickled. Requests name prefixes by (tenant, digest), never by task: names and
versions are resolved once, before a `Submit` is made. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prefixmux_server.engine.model_info import ModelInfo, TokenizerInfo
from prefixmux_server.engine.params import SamplingParams
from prefixmux_server.engine.record import StepRecord

FinishReason = Literal["eos", "stop", "length"]
ResidencyState = Literal["device", "host", "disk"]

LEAST_LOGPROB = -9999.0


@dataclass(frozen=True)
class Share:
    """What a tenant is due: `weight` (> 0) of the batch beside other tenants', and at most
    `max_running` rows at a time (None: no limit)."""

    weight: float = 1.0
    max_running: int | None = None


@dataclass(frozen=True)
class Submit:
    """One request. `prefixes` are digests in order; empty means the bare model.

    `input_ids` are what the encoder reads, or the prompt of a decoder-only model. `decoder_ids`
    are what the decoder continues from: its start token and what the caller gave (encoder-decoder,
    at least one), or what comes after an infix (decoder-only; empty without one).
    `deadline` is in seconds of CLOCK_MONOTONIC, which both processes share.
    `cache_domain` bounds every cache that may ever hold this request's tokens.
    """

    id: str
    tenant: str
    prefixes: tuple[str, ...]
    input_ids: tuple[int, ...]
    sampling: SamplingParams
    decoder_ids: tuple[int, ...] = ()
    priority: int = 0
    deadline: float | None = None
    cache_domain: str = ""
    share: Share = Share()


@dataclass(frozen=True)
class Abort:
    """Forget a request, or one of its outputs; what it held is free before the next step.

    Unknown ids are ignored, and outputs that have ended. Without its last output a request is
    forgotten, unless others had ended by themselves: how they did is told by its `Finished`.
    """

    id: str
    index: int | None = None


@dataclass(frozen=True)
class Pin:
    """Keep a prefix loaded, or do so no longer; it counts against the same budgets."""

    tenant: str
    digest: str
    pinned: bool


@dataclass(frozen=True)
class Shutdown:
    """End the engine process after the current step."""


EngineCommand = Submit | Abort | Pin | Shutdown


@dataclass(frozen=True)
class Timing:
    """Seconds. `queue_s` runs from arrival to admission, `ttft_s` to the first token."""

    queue_s: float
    prefix_load_s: float
    ttft_s: float | None
    total_s: float


@dataclass(frozen=True)
class EngineError:
    """A typed failure of one request; `code` is one of the HTTP contract's error codes.

    `reason` is `too_long` of a prefix that is unavailable because no memory could hold it.
    """

    code: str
    message: str
    reason: str | None = None


@dataclass(frozen=True)
class Started:
    """A request has its row. `prefixes` are the digests read from the row's lease, in order.

    Times as in `Timing`. A request that is refused or aborted before it runs never starts.
    """

    id: str
    prefixes: tuple[str, ...]
    prefix_tokens: tuple[int, ...]
    queue_s: float
    prefix_load_s: float


@dataclass(frozen=True)
class Likely:
    """A token and its log-probability."""

    token_id: int
    logprob: float


@dataclass(frozen=True)
class TokenLogprobs:
    """One token under log-softmax of the raw logits; `top` are the most likely ones, the best
    first. What has no probability at all is `LEAST_LOGPROB`: JSON knows no infinity.

    Kept as plain numbers: a step may have tens of thousands of them to tell.
    """

    token_id: int
    logprob: float
    top_ids: tuple[int, ...] = ()
    top_logprobs: tuple[float, ...] = ()

    @property
    def top(self) -> tuple[Likely, ...]:
        return tuple(map(Likely, self.top_ids, self.top_logprobs))


@dataclass(frozen=True)
class PromptLogprobs:
    """Of the decoder's real tokens before the output, but the first, which nothing predicts.

    Each is judged by what runs right before it: the first behind an infix by the infix's last
    virtual token, or, where the infix is keys and values, by x alone, which does not see it.
    In pieces, in order, all before the first `TokenDelta`.
    """

    id: str
    logprobs: tuple[TokenLogprobs, ...]


@dataclass(frozen=True)
class TokenDelta:
    """Tokens that one output of a request gained in one step; `logprobs` of each if asked for."""

    id: str
    token_ids: tuple[int, ...]
    index: int = 0
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(frozen=True)
class OutputEnd:
    """How one output of a request ended; `stop` is the stop token id that did it, if one did.

    `length` also where every token is banned: then no further one can be said.
    """

    index: int
    reason: FinishReason
    stop: int | None = None


@dataclass(frozen=True)
class BeamOutput:
    """One sequence that a beam search found; `score` as transformers' `sequences_scores`."""

    token_ids: tuple[int, ...]
    score: float
    reason: FinishReason


@dataclass(frozen=True)
class Finished:
    """The end of a request. `prefixes` are the digests read from the row's lease, in order.

    `outputs` are those that were not aborted, by index. `beams` are the sequences of a beam
    search, the best first; it has sent no `TokenDelta`, and its only output is the best.
    With `error` set there is no answer. A request aborted by the client gets no `Finished`.
    """

    id: str
    outputs: tuple[OutputEnd, ...]
    prefixes: tuple[str, ...]
    prefix_tokens: tuple[int, ...]
    timing: Timing
    error: EngineError | None = None
    beams: tuple[BeamOutput, ...] = ()

    @property
    def reason(self) -> FinishReason | None:
        """Of the first output."""
        return self.outputs[0].reason if self.outputs else None

    @property
    def stop(self) -> int | None:
        """Of the first output."""
        return self.outputs[0].stop if self.outputs else None


@dataclass(frozen=True)
class ResidencyChange:
    """Where a prefix is now."""

    tenant: str
    digest: str
    state: ResidencyState


@dataclass(frozen=True)
class StepOutput:
    """Everything one step has to say, in one message."""

    record: StepRecord | None
    deltas: tuple[TokenDelta, ...] = ()
    finished: tuple[Finished, ...] = ()
    residency: tuple[ResidencyChange, ...] = ()
    started: tuple[Started, ...] = ()
    prompts: tuple[PromptLogprobs, ...] = ()


@dataclass(frozen=True)
class Ready:
    """The engine serves. `tokenizer` is None where the model has no fast one."""

    model: ModelInfo
    tokenizer: TokenizerInfo | None


@dataclass(frozen=True)
class StartFailed:
    """The engine could not start; it exits after this. `code` as in `EngineError`."""

    code: str
    message: str


@dataclass(frozen=True)
class Alive:
    """The engine process runs; for `busy` seconds it has been at one step or command."""

    busy: float


EngineEvent = Ready | StartFailed | StepOutput | Alive
