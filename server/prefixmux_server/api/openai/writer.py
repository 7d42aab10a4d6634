"""What turns outputs into one of OpenAI's answers, whole or in chunks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import BaseModel

from prefixmux_server.engine.messages import FinishReason
from prefixmux_server.service.generation.answer import Answer, Output, TokenEvent

Finish = Literal["stop", "length"]


class TokenUsage(BaseModel):
    """In tokens. Those of a prefix are not the caller's and are not counted."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


@dataclass(frozen=True)
class Heading:
    """What every chunk of an answer says about it."""

    id: str
    created: int
    model: str

    def fields(self) -> dict[str, Any]:
        return {"id": self.id, "created": self.created, "model": self.model}


class Writer(Protocol):
    """Of one request. Outputs are counted over all its prompts."""

    def whole(self, answers: Sequence[Answer]) -> Mapping[str, object]:
        """Of one answer for each prompt; what is long is made when it is written."""
        ...

    def gained(self, told: TokenEvent) -> Iterator[BaseModel]:
        """The chunks that say so."""
        ...

    def ended(self, answer: Answer) -> Iterator[BaseModel]:
        """The last chunks of its outputs."""
        ...

    def used(self, answer: Answer) -> BaseModel:
        """The chunk that says what was used."""
        ...


def heading(kind: str, request_id: str, model: str) -> Heading:
    return Heading(f"{kind}-{request_id}", int(time.time()), model)


def usage_of(answers: Iterable[Answer]) -> TokenUsage:
    used = [answer.usage for answer in answers]
    prompt = sum(usage.prompt_tokens for usage in used)
    generated = sum(usage.generated_tokens for usage in used)
    return TokenUsage(
        prompt_tokens=prompt, completion_tokens=generated, total_tokens=prompt + generated
    )


def finish(reason: FinishReason) -> Finish:
    """OpenAI makes no difference between a stop and the model's own end."""
    return "length" if reason == "length" else "stop"


def text_of(output: Output) -> str:
    """A model that writes no text has been refused before."""
    return output.text or ""
