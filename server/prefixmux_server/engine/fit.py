"""Whether a request can ever run: what is refused for good, and in which words. Places nothing."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

from prefixmux_server.engine.messages import EngineError
from prefixmux_server.engine.params import SamplingParams
from prefixmux_server.engine.prompt import Prompt, prompt_of
from prefixmux_server.engine.request import Request
from prefixmux_server.memory.memory import KVMemory
from prefixmux_server.memory.prefix import PrefixKey
from prefixmux_server.memory.residency import Residency


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


@dataclass(frozen=True)
class Fit:
    """Measures requests against an empty engine."""

    memory: KVMemory
    residency: Residency
    limits: Limits

    def impossible(self, request: Request) -> EngineError | None:
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
        return self._over_share(request) or self._oversized(request.keys)

    def failure(self, request: Request) -> EngineError | None:
        """Why its prefixes could not be loaded."""
        for key in request.keys:
            failure = self.residency.failure(key)
            if failure is not None:
                return EngineError(failure.code, failure.message)
        return None

    def _over_share(self, request: Request) -> EngineError | None:
        most = request.submit.share.max_running
        if most is None or request.rows <= most:
            return None
        return EngineError(
            "invalid_request",
            f"{request.rows} {_rows_of(request.submit.sampling)} are more than this tenant may run "
            f"at a time ({most}); ask for fewer",
        )

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

    def unfit(self, request: Request) -> EngineError | None:
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


def _rows_of(sampling: SamplingParams) -> str:
    """What a client calls the rows that it asked for."""
    return "outputs" if sampling.beams is None else "beams"
