"""From a request to what the engine is told: resolve, tokenise, check, once per request.

Runs in a worker thread: it may read the catalogue and encode a long text. The version found here
is the one the request keeps until it ends.
"""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass

from prefixmux_server.engine.messages import Ready, Submit, TokenizerInfo
from prefixmux_server.errors import InvalidRequest, TokenizerUnavailable
from prefixmux_server.service.limits import PrefixSize, check_prompt, sampling_params
from prefixmux_server.service.request import GenerationRequest
from prefixmux_server.service.text import TextCodec
from prefixmux_store.store import PrefixStore
from prefixmux_store.types import Version


@dataclass(frozen=True)
class Admitted:
    """One request, ready for the engine. `arrived` is in seconds of CLOCK_MONOTONIC."""

    submit: Submit
    request: GenerationRequest
    version: Version | None
    codec: TextCodec | None
    model: str
    arrived: float


class Admission:
    """Thread-safe; owns the tokenizer built from the engine's last `Ready`."""

    def __init__(self, store: PrefixStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._codec: tuple[TokenizerInfo, TextCodec] | None = None

    def admit(
        self, tenant: str, request: GenerationRequest, ready: Ready, arrived: float
    ) -> Admitted:
        """Raises the store's errors for an unknown task or version, and those of `limits`."""
        version = self._resolve(tenant, request)
        codec = self._codec_of(ready)
        input_ids = self._encode(request, codec)
        check_prompt(input_ids, ready.model)
        sampling = sampling_params(
            request.parameters, len(input_ids), size_of(version), ready.model
        )
        timeout = request.parameters.timeout_s
        submit = Submit(
            id=secrets.token_hex(12),
            tenant=tenant,
            prefixes=version.digests if version else (),
            input_ids=input_ids,
            sampling=sampling,
            deadline=None if timeout is None else arrived + timeout,
            cache_domain=tenant,
        )
        return Admitted(submit, request, version, codec, ready.model.id, arrived)

    def _resolve(self, tenant: str, request: GenerationRequest) -> Version | None:
        if request.task_id is not None:
            return self._store.resolve(tenant, request.task_id, request.version)
        if request.version is not None:
            raise InvalidRequest("A version needs the task_id it is of.", param="version")
        return None

    def _encode(self, request: GenerationRequest, codec: TextCodec | None) -> tuple[int, ...]:
        if codec is None and request.parameters.stop:
            raise TokenizerUnavailable(
                "This model has no tokenizer to find stop strings with; use stop_token_ids.",
                param="parameters.stop",
            )
        if not isinstance(request.input, str):
            return request.input
        if codec is None:
            raise TokenizerUnavailable(
                "This model has no tokenizer; send the input as token ids.", param="input"
            )
        return codec.encode(request.input)

    def _codec_of(self, ready: Ready) -> TextCodec | None:
        if ready.tokenizer is None:
            return None
        with self._lock:
            if self._codec is None or self._codec[0] is not ready.tokenizer:
                self._codec = (ready.tokenizer, TextCodec(ready.tokenizer))
            return self._codec[1]


def size_of(version: Version | None) -> PrefixSize:
    if version is None:
        return PrefixSize()
    return PrefixSize(version.prefix_tokens, version.position_offset.get("decoder", 0))


def monotonic() -> float:
    """The clock of deadlines: CLOCK_MONOTONIC, shared with the engine process."""
    return time.monotonic()
