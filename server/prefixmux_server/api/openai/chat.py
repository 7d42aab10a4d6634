"""`/v1/chat/completions`: an answer to the messages of a conversation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from prefixmux_server.api.http.body import StrictRoute
from prefixmux_server.api.http.tenancy import Generator
from prefixmux_server.api.http.values import Strict, Text
from prefixmux_server.api.openai.chat_completion import ChatCompletion, ChatWriter
from prefixmux_server.api.openai.errors import responses
from prefixmux_server.api.openai.run import CHUNKS, Run, spelling_of
from prefixmux_server.api.openai.schemas import CommonBody, Ignored
from prefixmux_server.api.openai.unsupported import unsupported
from prefixmux_server.api.openai.writer import heading
from prefixmux_server.api.services import AppServices
from prefixmux_server.engine.messages import Ready
from prefixmux_server.engine.model_info import ModelInfo
from prefixmux_server.service.generation.request import GenerationRequest
from prefixmux_server.service.text.spelling import Spelling
from prefixmux_server.service.text.text import TextCodec
from prefixmux_store.types import JSON

MAX_MESSAGES = 1024
# Where neither the request nor the version says anything. OpenAI has no limit but the context;
# memory is reserved for a whole answer before it begins.
USUAL: dict[str, JSON] = {"max_new_tokens": 1024, "temperature": 1.0}

router = APIRouter(route_class=StrictRoute, tags=["openai"])


class TextPart(Strict):
    """One piece of a content."""

    type: Literal["text"]
    text: str


def _content(value: object) -> object:
    """Text, or parts that are all text: they become its lines."""
    if isinstance(value, str):
        return value
    parts: list[Any] = value if isinstance(value, list) else [None]
    if not all(
        isinstance(part, dict)
        and part.get("type") == "text"
        and isinstance(part.get("text"), str)
        and len(part) == 2
        for part in parts
    ):
        raise PydanticCustomError(
            "content", "This must be text or a list of text parts; other media are not read"
        )
    return "\n".join(part["text"] for part in parts)


Content = Annotated[Text, BeforeValidator(_content, json_schema_input_type=str | list[TextPart])]


class MessageBody(Strict):
    """`name`: of who speaks, for templates that know it."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    name: Text | None = None
    refusal: Ignored = None
    annotations: Ignored = None
    tool_calls: Annotated[Any, unsupported([], instead="leave tool_calls out")] = None
    function_call: Annotated[Any, unsupported(instead="leave function_call out")] = None
    audio: Annotated[Any, unsupported(instead="leave audio out")] = None

    def to_service(self) -> dict[str, str]:
        said = {"role": self.role, "content": self.content}
        return said if self.name is None else {**said, "name": self.name}


class ChatBody(CommonBody):
    """Fields of OpenAI's that are not here are unknown."""

    messages: Annotated[list[MessageBody], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: Annotated[Any, unsupported({"type": "text"}, instead="answers are text")] = (
        None
    )
    modalities: Annotated[Any, unsupported(["text"], instead="answers are text")] = None
    tools: Annotated[Any, unsupported([], instead="leave tools out")] = None
    tool_choice: Annotated[Any, unsupported("none", "auto", instead="leave tool_choice out")] = None
    functions: Annotated[Any, unsupported([], instead="leave functions out")] = None
    function_call: Annotated[
        Any, unsupported("none", "auto", instead="leave function_call out")
    ] = None
    audio: Annotated[Any, unsupported(instead="answers are text")] = None
    web_search_options: Annotated[Any, unsupported(instead="leave web_search_options out")] = None
    moderation: Annotated[Any, unsupported(instead="leave moderation out")] = None
    reasoning_effort: Annotated[Any, unsupported("none", instead="leave reasoning_effort out")] = (
        None
    )
    verbosity: Annotated[Any, unsupported("medium", instead="leave verbosity out")] = None
    store: Annotated[Any, unsupported(False, instead="answers are not kept; leave store out")] = (
        None
    )
    metadata: Ignored = None
    parallel_tool_calls: Ignored = None
    prediction: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_options: Ignored = None
    prompt_cache_retention: Ignored = None
    safety_identifier: Ignored = None
    service_tier: Ignored = None

    @field_validator("max_completion_tokens")
    @classmethod
    def _only_one(cls, most: int | None, info: ValidationInfo) -> int | None:
        if most is not None and info.data.get("max_tokens") not in (None, most):
            raise PydanticCustomError("twice", "This and max_tokens say the same; send one of them")
        return most

    @field_validator("top_logprobs")
    @classmethod
    def _with_logprobs(cls, count: int | None, info: ValidationInfo) -> int | None:
        if count is not None and not info.data.get("logprobs"):
            raise PydanticCustomError("top_logprobs", "This needs logprobs to be true")
        return count

    def parameters(self) -> dict[str, JSON]:
        values = self.common()
        most = self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
        if most is not None:
            values["max_new_tokens"] = most
        if self.logprobs:
            values["logprobs"] = self.top_logprobs or 0
        return values

    def request(self, base: ModelInfo, request_id: str) -> GenerationRequest:
        """Without its messages. Raises `TaskNotFound`."""
        return self.asked(base, self.parameters(), USUAL, request_id)


@router.post(
    "/v1/chat/completions",
    response_model=ChatCompletion,
    responses={**responses(404, 413, 415, 429, 500, 504), 200: CHUNKS},
)
async def chat_completions(
    request: Request, body: ChatBody, tenant: Generator, services: AppServices
) -> Response:
    """The model's chat template makes the prompt. Where it has none, a task's own template takes
    one message."""
    request_id: str = request.state.request_id

    def begin(ready: Ready, codec: TextCodec | None) -> tuple[GenerationRequest, Spelling]:
        return body.request(ready.model, request_id), spelling_of(codec)

    asked, spelling = await services.preparation.begin(tenant, request_id, begin)
    messages = [message.to_service() for message in body.messages]
    prompted = await services.chat.prompted(tenant, asked, messages)
    writer = ChatWriter(heading("chatcmpl", request_id, body.model), spelling)
    return await Run(request, services, tenant, body).answer([prompted], writer)
