"""`/v1/completions`: text behind text, for one prompt or several."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from prefixmux_server.api.http.body import StrictRoute
from prefixmux_server.api.http.tenancy import Generator
from prefixmux_server.api.http.values import well_formed
from prefixmux_server.api.openai.completion import Completion, CompletionWriter
from prefixmux_server.api.openai.errors import responses
from prefixmux_server.api.openai.run import CHUNKS, Run, spelling_of
from prefixmux_server.api.openai.schemas import CommonBody, NonEmpty
from prefixmux_server.api.openai.unsupported import unsupported
from prefixmux_server.api.openai.writer import heading
from prefixmux_server.api.services import AppServices
from prefixmux_server.engine.messages import Ready
from prefixmux_server.engine.model_info import ModelInfo
from prefixmux_server.errors import InvalidRequest
from prefixmux_server.service.generation.request import GenerationRequest
from prefixmux_server.service.generation.together import all_or_none
from prefixmux_server.service.text.spelling import Spelling
from prefixmux_server.service.text.text import TextCodec
from prefixmux_store.types import JSON

MAX_PROMPTS = 256
# OpenAI's, where neither the request nor the version says anything.
USUAL: dict[str, JSON] = {"max_new_tokens": 16, "temperature": 1.0}

router = APIRouter(route_class=StrictRoute, tags=["openai"])


def _is_ids(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(id) is int for id in value)


def _prompts(value: object) -> object:
    """One prompt or several, as a list of several."""
    several = [value] if isinstance(value, str) or _is_ids(value) else value
    if (
        not isinstance(several, list)
        or not 1 <= len(several) <= MAX_PROMPTS
        or not all((isinstance(one, str) and one) or _is_ids(one) for one in several)
    ):
        raise PydanticCustomError(
            "prompt",
            "This must be text, a list of token ids, or a list of 1 to 256 of either, none empty",
        )
    return [well_formed(one) if isinstance(one, str) else tuple(one) for one in several]


Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Several = Field(min_length=1, max_length=MAX_PROMPTS)
Mixed = Annotated[list[NonEmpty | Ids], Several]
Prompts = Annotated[
    list[str | tuple[int, ...]],
    BeforeValidator(_prompts, json_schema_input_type=NonEmpty | Mixed | Ids),
]


class CompletionBody(CommonBody):
    """`max_tokens` 0: only what the prompts are worth, with `echo` and `logprobs`."""

    prompt: Prompts
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool | None = None
    best_of: Annotated[int, Field(ge=1)] | None = None
    suffix: Annotated[Any, unsupported("", instead="leave suffix out")] = None

    @field_validator("best_of")
    @classmethod
    def _is_n(cls, best_of: int | None, info: ValidationInfo) -> int | None:
        if best_of is not None and best_of != (info.data.get("n") or 1):
            raise PydanticCustomError("best_of", "This must be n: all outputs are answered")
        return best_of

    @property
    def tells_prompt(self) -> bool:
        """Whether the prompt's own log-probabilities are to be told."""
        return bool(self.echo) and self.logprobs is not None

    def parameters(self) -> dict[str, JSON]:
        values = self.common()
        if self.max_tokens is not None:
            values["max_new_tokens"] = self.max_tokens
        if self.logprobs is not None:
            values["logprobs"] = self.logprobs
        if self.tells_prompt or self.max_tokens == 0:
            values["prompt_logprobs"] = self.logprobs or 0
        return values

    def requests(self, base: ModelInfo, request_id: str) -> list[GenerationRequest]:
        """One for each prompt. Raises `TaskNotFound`."""
        asked = self.asked(base, self.parameters(), USUAL, request_id)
        return [replace(asked, input=prompt, rows=len(self.prompt)) for prompt in self.prompt]

    def check(self, base: ModelInfo) -> None:
        """Raises `InvalidRequest` for what does not go together here."""
        if self.tells_prompt and base.family == "seq2seq":
            raise InvalidRequest(
                "An encoder-decoder model predicts no tokens of its prompt: leave echo or logprobs"
                " out, or send what is to be scored to /score.",
                param="echo",
            )
        if self.tells_prompt and self.stream:
            raise InvalidRequest(
                "What the prompt's tokens are worth is told at the end: leave out stream, echo or"
                " logprobs.",
                param="stream",
            )


@router.post(
    "/v1/completions",
    response_model=Completion,
    responses={**responses(404, 413, 415, 429, 500, 504), 200: CHUNKS},
)
async def completions(
    request: Request, body: CompletionBody, tenant: Generator, services: AppServices
) -> Response:
    """All prompts are answered, or none."""
    request_id: str = request.state.request_id

    def begin(ready: Ready, codec: TextCodec | None) -> tuple[list[GenerationRequest], Spelling]:
        body.check(ready.model)
        return body.requests(ready.model, request_id), spelling_of(codec)

    asked, spelling = await services.preparation.begin(tenant, request_id, begin)
    echoes = None
    if body.echo:
        echoes = await all_or_none(services.preparation.tokenised(tenant, one) for one in asked)
        asked = [echo.request for echo in echoes]
    top = heading("cmpl", request_id, body.model)
    writer = CompletionWriter(top, spelling, body.n or 1, echoes, tells_prompt=body.tells_prompt)
    return await Run(request, services, tenant, body).answer(asked, writer)
