"""Answers as they are read, typed.

Names and meanings are the server's contract. Answers keep fields this version does not know
(`extra="allow"`), so that a newer server does not break an older client.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from prefixmux.errors import APIStatusError, class_of


class Answer(BaseModel):
    """Base of all answers: immutable, open to fields of newer servers."""

    model_config = ConfigDict(extra="allow", frozen=True)


class PrefixRef(Answer):
    """A prefix that a row was generated with; `tokens` counts its virtual tokens."""

    task_id: str
    version: int
    digest: str
    tokens: int


class Output(Answer):
    """One generated sequence.

    `token_ids` ends with the token that ended it; `text` is None without a tokenizer; `stop` is
    the stop string or token id that was met; `score` is that of a beam search.
    """

    index: int
    text: str | None
    token_ids: tuple[int, ...]
    finish_reason: Literal["eos", "stop", "length"] | str
    stop: str | int | None = None
    score: float | None = None


class Usage(Answer):
    """Token counts; `generated_tokens` is the sum over outputs."""

    prompt_tokens: int
    prefix_tokens: int
    generated_tokens: int


class Timing(Answer):
    """Seconds: in the queue, waiting for the prefix, to the first token, in all."""

    queue_s: float | None = None
    prefix_load_s: float | None = None
    ttft_s: float | None = None
    total_s: float | None = None


class GenerateResponse(Answer):
    """The answer to one row; for the bare model `task_id`, `version`, `prefix_digest` are None.

    A beam search answers the best of `outputs` first.
    """

    id: str
    tenant: str | None = None
    task_id: str | None = None
    version: int | None = None
    prefix_digest: str | None = None
    prefixes: tuple[PrefixRef, ...] = ()
    model: str | None = None
    outputs: tuple[Output, ...]
    seed: int | None = None
    usage: Usage
    timing: Timing = Timing()

    @property
    def text(self) -> str | None:
        """The first output's text; None when the model has no tokenizer."""
        return self.outputs[0].text


class ErrorBody(Answer):
    """The `error` object of an error answer."""

    code: str
    message: str
    param: str | None = None
    request_id: str | None = None
    reason: str | None = None

    def to_exception(self, status_code: int) -> APIStatusError:
        return class_of(status_code)(
            self.message,
            status_code=status_code,
            code=self.code,
            param=self.param,
            reason=self.reason,
            request_id=self.request_id,
        )


class BatchRow(Answer):
    """One row of a batch: a response when `status` is 200, else an error."""

    status: int
    response: GenerateResponse | None = None
    error: ErrorBody | None = None

    @property
    def ok(self) -> bool:
        return self.response is not None

    def unwrap(self) -> GenerateResponse:
        """The response, or the row's error raised as the class of its status."""
        if self.response is not None:
            return self.response
        if self.error is not None:
            raise self.error.to_exception(self.status)
        raise class_of(self.status)("The row has no answer.", status_code=self.status)


class BatchResponse(Answer):
    results: tuple[BatchRow, ...]


class Site(Answer):
    """One attention site: what a prefix for it must be shaped like."""

    layers: int
    kv_heads: int
    k_dim: int
    v_dim: int


class ModelInfo(Answer):
    """The resident model, its shape, and what can be uploaded for it.

    `family` is "causal" (decoder-only) or "seq2seq" (encoder-decoder). A special id is None where
    the model names none.
    """

    id: str
    family: str
    layers: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocabulary: int
    dtype: str
    device: str
    context: int | None = None
    fingerprint: str | None = None
    methods: tuple[str, ...] = ()
    sites: dict[str, Site] = {}
    embedding_width: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    bos_token_id: int | None = None
    decoder_start_token_id: int | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | None = None


class ServerVersion(Answer):
    """The server's version; other fields (libraries) are kept as they come."""

    version: str


class Health(Answer):
    """Whether the server takes requests; `reason` says why not."""

    ready: bool
    status: str
    reason: str | None = None
