"""A completion as OpenAI's clients read it; its chunks have the same shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel

from prefixmux_server.api.openai.logprobs import CompletionLogprobs, OutputLogprobs
from prefixmux_server.api.openai.writer import (
    Finish,
    Heading,
    TokenUsage,
    finish,
    text_of,
    usage_of,
)
from prefixmux_server.service.generation.answer import Answer, Output, TokenEvent
from prefixmux_server.service.generation.likely import Logprobs
from prefixmux_server.service.generation.preparation import Tokenised
from prefixmux_server.service.text.spelling import Spelling


class CompletionChoice(BaseModel):
    """`index` counts the outputs of all prompts."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: Finish | None = None


class Completion(BaseModel):
    """`usage` is null in every chunk but the one that is asked for by `include_usage`."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: TokenUsage | None = None


class CompletionWriter:
    """`outputs`: of each prompt. `echoes`: the prompts, where they stand before their outputs;
    with `tells_prompt` their tokens do, too, but in no chunk."""

    def __init__(
        self,
        heading: Heading,
        spelling: Spelling,
        outputs: int,
        echoes: Sequence[Tokenised] | None = None,
        *,
        tells_prompt: bool = False,
    ) -> None:
        self._heading = heading
        self._logprobs = OutputLogprobs(spelling)
        self._outputs = outputs
        self._echoes = echoes
        self._tells_prompt = tells_prompt
        self._begun: set[int] = set()

    def whole(self, answers: Sequence[Answer]) -> Mapping[str, object]:
        choices = (
            self._choice(prompt, answer, output)
            for prompt, answer in enumerate(answers)
            for output in answer.outputs
        )
        return {**vars(self._completion([], usage_of(answers))), "choices": choices}

    def gained(self, told: TokenEvent) -> Iterator[Completion]:
        text, logprobs = self._opening(told.index) + (told.text or ""), None
        if told.logprobs is not None:
            logprobs = self._logprobs.of(told.index, told.logprobs)
        if text or told.logprobs:
            yield self._completion(
                [CompletionChoice(index=told.index, text=text, logprobs=logprobs)]
            )

    def ended(self, answer: Answer) -> Iterator[Completion]:
        for output in answer.outputs:
            text, reason = self._opening(output.index), finish(output.finish_reason)
            choice = CompletionChoice(index=output.index, text=text, finish_reason=reason)
            yield self._completion([choice])

    def used(self, answer: Answer) -> Completion:
        return self._completion([], usage_of([answer]))

    def _completion(
        self, choices: list[CompletionChoice], usage: TokenUsage | None = None
    ) -> Completion:
        return Completion(**self._heading.fields(), choices=choices, usage=usage)

    def _opening(self, index: int) -> str:
        """What stands before the output's first text."""
        if self._echoes is None or index in self._begun:
            return ""
        self._begun.add(index)
        return self._echoes[index // self._outputs].text

    def _choice(self, prompt: int, answer: Answer, output: Output) -> Mapping[str, object]:
        index = prompt * self._outputs + output.index
        made = CompletionChoice(
            index=index,
            text=self._opening(index) + text_of(output),
            finish_reason=finish(output.finish_reason),
        )
        return {**vars(made), "logprobs": self._told(index, prompt, answer, output)}

    def _told(
        self, index: int, prompt: int, answer: Answer, output: Output
    ) -> Mapping[str, Iterator[object]] | None:
        if output.logprobs is None:
            return None
        if self._echoes is None or answer.prompt_logprobs is None or not self._tells_prompt:
            return self._logprobs.columns(index, output.logprobs)
        token_ids = self._echoes[prompt].token_ids
        # Not those that an infix puts behind the prompt.
        told = answer.prompt_logprobs[: len(token_ids) - 1]
        both = Logprobs.joined([told, output.logprobs])
        return self._logprobs.columns(index, both, first=token_ids[0])
