"""A chat completion as OpenAI's clients read it, whole and in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from prefixmux_server.api.openai.logprobs import ChatLogprobs, chat_logprobs, chat_tokens
from prefixmux_server.api.openai.writer import (
    Finish,
    Heading,
    TokenUsage,
    finish,
    text_of,
    usage_of,
)
from prefixmux_server.service.generation.answer import Answer, Output, TokenEvent
from prefixmux_server.service.text.spelling import Spelling

SAID = Field(exclude_if=lambda value: value is None)


class Said(BaseModel):
    """What the model says."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    index: int
    message: Said
    logprobs: ChatLogprobs | None
    finish_reason: Finish


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: TokenUsage


class Delta(BaseModel):
    """What a chunk adds; what is null it says nothing about."""

    role: Annotated[Literal["assistant"] | None, SAID] = None
    content: Annotated[str | None, SAID] = None


class ChunkChoice(BaseModel):
    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: Finish | None = None


class ChatChunk(BaseModel):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: TokenUsage | None = None


class ChatWriter:
    """A conversation is one prompt."""

    def __init__(self, heading: Heading, spelling: Spelling) -> None:
        self._heading = heading
        self._spelling = spelling
        self._begun: set[int] = set()

    def whole(self, answers: Sequence[Answer]) -> Mapping[str, object]:
        made = ChatCompletion(**self._heading.fields(), choices=[], usage=usage_of(answers))
        choices = (self._choice(output) for answer in answers for output in answer.outputs)
        return {**vars(made), "choices": choices}

    def gained(self, told: TokenEvent) -> Iterator[ChatChunk]:
        yield from self._opening(told.index)
        if told.text or told.logprobs:
            delta = Delta(content=told.text or "")
            logprobs = chat_logprobs(told.logprobs, self._spelling)
            yield self._chunk(ChunkChoice(index=told.index, delta=delta, logprobs=logprobs))

    def ended(self, answer: Answer) -> Iterator[ChatChunk]:
        for output in answer.outputs:
            yield from self._opening(output.index)
            reason = finish(output.finish_reason)
            yield self._chunk(ChunkChoice(index=output.index, delta=Delta(), finish_reason=reason))

    def used(self, answer: Answer) -> ChatChunk:
        return ChatChunk(**self._heading.fields(), choices=[], usage=usage_of([answer]))

    def _opening(self, index: int) -> Iterator[ChatChunk]:
        """Who speaks, once."""
        if index not in self._begun:
            self._begun.add(index)
            yield self._chunk(ChunkChoice(index=index, delta=Delta(role="assistant", content="")))

    def _chunk(self, choice: ChunkChoice) -> ChatChunk:
        return ChatChunk(**self._heading.fields(), choices=[choice])

    def _choice(self, output: Output) -> Mapping[str, object]:
        made = ChatChoice(
            index=output.index,
            message=Said(content=text_of(output)),
            logprobs=None if output.logprobs is None else ChatLogprobs(content=[]),
            finish_reason=finish(output.finish_reason),
        )
        if made.logprobs is None or output.logprobs is None:
            return vars(made)
        content = chat_tokens(output.logprobs, self._spelling)
        return {**vars(made), "logprobs": {**vars(made.logprobs), "content": content}}
