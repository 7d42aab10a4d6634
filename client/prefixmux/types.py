"""Answers about rows: what was generated, how it ended, what it cost.

Names and meanings are the server's contract.
"""

from __future__ import annotations

from typing import Literal

from prefixmux.answer import Answer, ErrorBody, Wire
from prefixmux.statuses import class_of


class PrefixRef(Wire):
    """A prefix that a row was generated with; `tokens` counts its virtual tokens."""

    task_id: str
    version: int
    digest: str
    tokens: int


class Logprob(Wire):
    """A token's log-probability under the model, before any shaping; `token` None without a
    tokenizer."""

    token_id: int
    token: str | None = None
    logprob: float


class TokenLogprob(Logprob):
    """That of a token of the sequence; `top` are the likeliest in its place, the best first."""

    top: tuple[Logprob, ...] = ()


class Output(Wire):
    """One generated sequence.

    `token_ids` ends with the token that ended it; `text` is None without a tokenizer; `stop` is
    the stop string or token id that was met; `score` is that of a beam search; `logprobs`, one
    for each of `token_ids`, come if they were asked for.
    """

    index: int
    text: str | None
    token_ids: tuple[int, ...]
    finish_reason: Literal["eos", "stop", "length"] | str
    stop: str | int | None = None
    score: float | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None


class TokenEvent(Wire):
    """What a stream says next of the output `index`: the texts of an output join to its text.

    `text` may be empty (a character is not whole yet) and is None without a tokenizer.
    """

    index: int
    text: str | None
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] | None = None


class Usage(Wire):
    """Token counts; `generated_tokens` is the sum over outputs."""

    prompt_tokens: int
    prefix_tokens: int
    generated_tokens: int


class Timing(Wire):
    """Seconds: in the queue, waiting for the prefix, to the first token, in all."""

    queue_s: float | None = None
    prefix_load_s: float | None = None
    ttft_s: float | None = None
    total_s: float | None = None


class GenerateResponse(Answer):
    """The answer to one row; for the bare model `task_id`, `version`, `prefix_digest` are None.

    A beam search answers the best of `outputs` first. The first of `prompt_logprobs` is None:
    nothing stands before it.
    """

    id: str
    tenant: str | None = None
    task_id: str | None = None
    version: int | None = None
    prefix_digest: str | None = None
    prefixes: tuple[PrefixRef, ...] = ()
    model: str | None = None
    outputs: tuple[Output, ...]
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None
    seed: int | None = None
    usage: Usage
    timing: Timing = Timing()

    @property
    def text(self) -> str | None:
        """The first output's text; None when the model has no tokenizer."""
        return self.outputs[0].text


class ErrorAnswer(Wire):
    error: ErrorBody


class BatchRow(Wire):
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


class Score(Wire):
    """How likely one target is: `logprob` is the sum over its tokens; `is_greedy`: each of them is
    the likeliest in its place."""

    index: int
    text: str | None
    token_ids: tuple[int, ...]
    logprob: float
    logprobs: tuple[Logprob, ...] = ()
    is_greedy: bool


class ScoreResponse(Answer):
    """The scores of the targets, in the order they were given."""

    id: str
    tenant: str | None = None
    task_id: str | None = None
    version: int | None = None
    prefix_digest: str | None = None
    prefixes: tuple[PrefixRef, ...] = ()
    model: str | None = None
    scores: tuple[Score, ...]
    usage: Usage
    timing: Timing = Timing()

    @property
    def best(self) -> Score:
        """The likeliest target."""
        return max(self.scores, key=lambda score: score.logprob)
