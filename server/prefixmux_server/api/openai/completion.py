"""A completion as OpenAI's clients read it; its chunks have the same shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal

from pydantic import BaseModel

from prefixmux_server.api.openai.writer import (
    Finish,
    Heading,
    Usage,
    finish,
    text_of,
    usage_of,
)
from prefixmux_server.service.answer import Answer, Output, TokenEvent
from prefixmux_server.service.preparation import Tokenised

# A token with its log-probability and the most likely ones, as in an `Answer`; of a prompt's
# first, which nothing predicts, the text alone.
Entry = Mapping[str, Any]


class Logprobs(BaseModel):
    """One entry for each token. `top_logprobs` holds the token itself, too; `text_offset` counts
    the characters of the tokens before it. Nothing predicts a prompt's first token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class Choice(BaseModel):
    """`index` counts the outputs of all prompts."""

    index: int
    text: str
    logprobs: Logprobs | None = None
    finish_reason: Finish | None = None


class Completion(BaseModel):
    """`usage` is null in every chunk but the one that is asked for by `include_usage`."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None = None


@dataclass
class CompletionWriter:
    """`outputs`: of each prompt. `echoes`: the prompts, where they stand before their outputs;
    with `tells_prompt` their tokens do, too, but in no chunk."""

    heading: Heading
    outputs: int
    echoes: Sequence[Tokenised] | None = None
    tells_prompt: bool = False
    _begun: set[int] = field(default_factory=set)
    _offsets: dict[int, int] = field(default_factory=dict)

    def whole(self, answers: Sequence[Answer]) -> Completion:
        choices = [
            self._choice(prompt, answer, output)
            for prompt, answer in enumerate(answers)
            for output in answer.outputs
        ]
        return self._completion(choices, usage_of(answers))

    def gained(self, told: TokenEvent) -> Iterator[Completion]:
        text = self._opening(told.index) + (told.text or "")
        logprobs = None
        if told.logprobs is not None:
            offset = self._offsets.get(told.index, 0)
            logprobs = _logprobs(told.logprobs, offset)
            self._offsets[told.index] = offset + sum(map(len, logprobs.tokens))
        if text or told.logprobs:
            yield self._completion([Choice(index=told.index, text=text, logprobs=logprobs)])

    def ended(self, answer: Answer) -> Iterator[Completion]:
        for output in answer.outputs:
            text, reason = self._opening(output.index), finish(output.finish_reason)
            choice = Choice(index=output.index, text=text, finish_reason=reason)
            yield self._completion([choice])

    def used(self, answer: Answer) -> Completion:
        return self._completion([], usage_of([answer]))

    def _completion(self, choices: list[Choice], usage: Usage | None = None) -> Completion:
        return Completion(**self.heading.fields(), choices=choices, usage=usage)

    def _opening(self, index: int) -> str:
        """What stands before the output's first text."""
        if self.echoes is None or index in self._begun:
            return ""
        self._begun.add(index)
        return self.echoes[index // self.outputs].text

    def _choice(self, prompt: int, answer: Answer, output: Output) -> Choice:
        index = prompt * self.outputs + output.index
        entries: Sequence[Entry] | None = output.logprobs
        if entries is not None and self.tells_prompt and self.echoes is not None:
            entries = [*_of_prompt(self.echoes[prompt], answer), *entries]
        return Choice(
            index=index,
            text=self._opening(index) + text_of(output),
            logprobs=None if entries is None else _logprobs(entries),
            finish_reason=finish(output.finish_reason),
        )


def _of_prompt(echo: Tokenised, answer: Answer) -> list[Entry]:
    """Of the prompt's own tokens: not those that a decoder, or an infix, puts behind them."""
    told = (answer.prompt_logprobs or [])[1 : len(echo.request.input)]
    return [{"token": echo.first, "logprob": None}, *[entry for entry in told if entry]]


def _logprobs(entries: Sequence[Entry], offset: int = 0) -> Logprobs:
    tokens = [entry["token"] for entry in entries]
    return Logprobs(
        tokens=tokens,
        token_logprobs=[entry["logprob"] for entry in entries],
        top_logprobs=[_top(entry) for entry in entries],
        text_offset=[*accumulate(map(len, tokens), initial=offset)][:-1],
    )


def _top(entry: Entry) -> dict[str, float] | None:
    """By text; of several tokens with the same text the most likely one."""
    if entry["logprob"] is None:
        return None
    found: dict[str, float] = {}
    for likely in (*entry["top"], entry):
        found.setdefault(likely["token"], likely["logprob"])
    return found
