"""The answer to one generation, with the names it has on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import InstanceOf, PlainSerializer

from prefixmux_server.engine.messages import FinishReason
from prefixmux_server.service.generation.likely import Logprobs, PromptLogprobs

# Numbers; an answer that has more is not to be written at one go.
LARGE = 2048

Told = Annotated[
    InstanceOf[Logprobs],
    PlainSerializer(Logprobs.told, return_type=list[dict[str, Any]]),
]
PromptTold = Annotated[
    InstanceOf[PromptLogprobs],
    PlainSerializer(PromptLogprobs.told, return_type=list[dict[str, Any] | None]),
]


@dataclass(frozen=True)
class Output:
    """`token_ids`: every sampled token up to and including the one that ended it. `text` is cut
    before the stop string, if one ended it; None where the model has no tokenizer. `score` is that
    of a beam search, whose outputs come the best first."""

    index: int
    text: str | None
    token_ids: list[int]
    finish_reason: FinishReason
    stop: str | int | None
    score: float | None = None
    logprobs: Told | None = None


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """What one output gained: `text` is that of `token_ids`, or the text that was held back before
    and is sure now. The texts of an output join to its final one, the ids and `logprobs` to its
    own. `text` is None where the model has no tokenizer, `logprobs` where none were asked for."""

    index: int
    text: str | None
    token_ids: list[int]
    logprobs: Logprobs | None


@dataclass(frozen=True)
class UsedPrefix:
    """One prefix that the row attended to; `digest` is what the engine read from its lease."""

    task_id: str
    version: int
    digest: str
    tokens: int


@dataclass(frozen=True)
class Usage:
    """`prompt_tokens` are those of input and decoder input, with the special tokens around a text;
    what a decoder begins with by itself is not counted. `generated_tokens` is over all outputs."""

    prompt_tokens: int
    prefix_tokens: int
    generated_tokens: int


@dataclass(frozen=True)
class AnswerTiming:
    """Seconds since the request arrived, but `prefix_load_s`: time spent waiting for a prefix."""

    queue_s: float
    prefix_load_s: float
    ttft_s: float
    total_s: float


@dataclass(frozen=True)
class Answer:
    """Everything about one finished generation."""

    id: str
    tenant: str
    task_id: str | None
    version: int | None
    prefix_digest: str | None
    prefixes: list[UsedPrefix]
    model: str
    outputs: list[Output]
    prompt_logprobs: PromptTold | None
    seed: int
    usage: Usage
    timing: AnswerTiming

    @property
    def is_large(self) -> bool:
        told = [self.prompt_logprobs, *(output.logprobs for output in self.outputs)]
        tokens = sum(len(output.token_ids) for output in self.outputs)
        return tokens + sum(one.numbers for one in told if one is not None) > LARGE
