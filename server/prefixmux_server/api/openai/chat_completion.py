"""A chat completion as OpenAI's clients read it, whole and in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from prefixmux_server.api.openai.writer import (
    Finish,
    Heading,
    Usage,
    finish,
    text_of,
    usage_of,
)
from prefixmux_server.service.answer import Answer, Output, TokenEvent

SAID = Field(exclude_if=lambda value: value is None)
BROKEN = "\N{REPLACEMENT CHARACTER}"


class Likely(BaseModel):
    """`bytes` of the token's UTF-8; null for one that is only a part of a character."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(Likely):
    """`top_logprobs`: the most likely tokens in its place, the best first."""

    top_logprobs: list[Likely]


class Logprobs(BaseModel):
    content: list[TokenLogprob]
    refusal: None = None


class Said(BaseModel):
    """What the model says."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    index: int
    message: Said
    logprobs: Logprobs | None
    finish_reason: Finish


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class Delta(BaseModel):
    """What a chunk adds; what is null it says nothing about."""

    role: Annotated[Literal["assistant"] | None, SAID] = None
    content: Annotated[str | None, SAID] = None


class ChunkChoice(BaseModel):
    index: int
    delta: Delta
    logprobs: Logprobs | None = None
    finish_reason: Finish | None = None


class ChatChunk(BaseModel):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None


@dataclass
class ChatWriter:
    """A conversation is one prompt."""

    heading: Heading
    _begun: set[int] = field(default_factory=set)

    def whole(self, answers: Sequence[Answer]) -> ChatCompletion:
        choices = [_choice(output) for answer in answers for output in answer.outputs]
        return ChatCompletion(**self.heading.fields(), choices=choices, usage=usage_of(answers))

    def gained(self, told: TokenEvent) -> Iterator[ChatChunk]:
        yield from self._opening(told.index)
        if told.text or told.logprobs:
            delta, logprobs = Delta(content=told.text or ""), _logprobs(told.logprobs)
            yield self._chunk(ChunkChoice(index=told.index, delta=delta, logprobs=logprobs))

    def ended(self, answer: Answer) -> Iterator[ChatChunk]:
        for output in answer.outputs:
            yield from self._opening(output.index)
            reason = finish(output.finish_reason)
            yield self._chunk(ChunkChoice(index=output.index, delta=Delta(), finish_reason=reason))

    def used(self, answer: Answer) -> ChatChunk:
        return ChatChunk(**self.heading.fields(), choices=[], usage=usage_of([answer]))

    def _opening(self, index: int) -> Iterator[ChatChunk]:
        """Who speaks, once."""
        if index not in self._begun:
            self._begun.add(index)
            yield self._chunk(ChunkChoice(index=index, delta=Delta(role="assistant", content="")))

    def _chunk(self, choice: ChunkChoice) -> ChatChunk:
        return ChatChunk(**self.heading.fields(), choices=[choice])


def _choice(output: Output) -> Choice:
    return Choice(
        index=output.index,
        message=Said(content=text_of(output)),
        logprobs=_logprobs(output.logprobs),
        finish_reason=finish(output.finish_reason),
    )


def _logprobs(entries: Sequence[Mapping[str, Any]] | None) -> Logprobs | None:
    if entries is None:
        return None
    return Logprobs(
        content=[
            TokenLogprob(
                **_likely(entry), top_logprobs=[Likely(**_likely(e)) for e in entry["top"]]
            )
            for entry in entries
        ]
    )


def _likely(entry: Mapping[str, Any]) -> dict[str, Any]:
    token: str = entry["token"]
    spelled = None if BROKEN in token else list(token.encode())
    return {"token": token, "logprob": entry["logprob"], "bytes": spelled}
