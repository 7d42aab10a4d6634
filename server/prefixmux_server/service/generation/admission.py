"""From a request to what the engine is told: resolve, tokenise, check, once per request.

Runs in a worker thread: it may read the catalogue and encode a long text. The versions found here
are those that the request keeps until it ends.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from prefixmux_server.engine.messages import Ready, Submit
from prefixmux_server.errors import TokenizerUnavailable
from prefixmux_server.service.generation.budget import check_numbers
from prefixmux_server.service.generation.limits import check_rows, decoder_tokens, sampling_params
from prefixmux_server.service.generation.parameters import Parameters, settle
from prefixmux_server.service.generation.prompt import Prompt, prompt_of
from prefixmux_server.service.generation.request import GenerationRequest
from prefixmux_server.service.generation.room import size_of
from prefixmux_server.service.generation.target import Target, resolve
from prefixmux_server.service.text.codecs import Codecs
from prefixmux_server.service.text.text import TextCodec
from prefixmux_store.store import PrefixStore


@dataclass(frozen=True)
class Admitted:
    """One request, ready for the engine. `arrived` is in seconds of CLOCK_MONOTONIC."""

    submit: Submit
    target: Target
    parameters: Parameters
    prompt_tokens: int
    codec: TextCodec | None
    model: str
    arrived: float

    @property
    def most_tokens(self) -> int:
        """Those that it brings, and the most that it can be answered with."""
        sampling = self.submit.sampling
        outputs = sampling.n if sampling.beams is None else sampling.beams.num_return
        given = self.prompt_tokens + self.target.prefix_tokens
        return given + outputs * sampling.max_new_tokens


class Admission:
    """Thread-safe. `max_rows` are those of a batch."""

    def __init__(self, store: PrefixStore, max_rows: int, codecs: Codecs | None = None) -> None:
        self._store = store
        self._max_rows = max_rows
        self._codecs = Codecs() if codecs is None else codecs

    def admit(
        self,
        tenant: str,
        request: GenerationRequest,
        ready: Ready,
        arrived: float,
        max_seconds: float,
    ) -> Admitted:
        """To be done `max_seconds` after it arrived, or when it asks to be, if that is earlier.

        Raises the store's errors for an unknown task or version, those of `target`, `prompt` and
        `limits`.
        """
        target = resolve(self._store, tenant, request)
        codec = self._codecs.of(ready)
        parameters = settle(request.parameters, target.defaults.parameters, request.usual)
        check_stop(parameters, ready)
        check_rows(parameters, self._max_rows)
        prompt = prompt_of(request, target, codec, ready.model)
        seconds = min(parameters.timeout_s or max_seconds, max_seconds)
        submit = _submit(tenant, target, prompt, parameters, ready, arrived + seconds)
        tokens, _ = decoder_tokens(prompt, ready.model)
        check_numbers(submit.sampling, tokens, request.rows)
        return Admitted(submit, target, parameters, prompt.tokens, codec, ready.model.id, arrived)


def check_stop(parameters: Parameters, ready: Ready) -> None:
    """Raises `TokenizerUnavailable` for stop strings that could not be found."""
    if ready.tokenizer is None and parameters.stop:
        raise TokenizerUnavailable(
            "This model has no tokenizer to find stop strings with; use stop_token_ids.",
            param="parameters.stop",
        )


def _submit(
    tenant: str,
    target: Target,
    prompt: Prompt,
    parameters: Parameters,
    ready: Ready,
    deadline: float,
) -> Submit:
    size = size_of(target, ready.model)
    return Submit(
        id=secrets.token_hex(12),
        tenant=tenant,
        prefixes=target.digests,
        input_ids=prompt.input_ids,
        decoder_ids=prompt.decoder_ids,
        sampling=sampling_params(parameters, prompt, size, ready.model),
        deadline=deadline,
        cache_domain=tenant,
    )


def monotonic() -> float:
    """The clock of deadlines: CLOCK_MONOTONIC, shared with the engine process."""
    return time.monotonic()
