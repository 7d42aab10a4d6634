"""The bodies a client may send: strict types, closed ranges, no unknown field.

What a value means is the service's; what depends on the model is checked there. A parameter that
is null is one left out.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SkipValidation
from pydantic_core import PydanticCustomError

from prefixmux_server.api.http.values import Strict, TaskId, Text, VersionNumber
from prefixmux_server.api.parameters import ParametersBody
from prefixmux_server.service.generation.request import GenerationRequest, PartName, TokenInput

MAX_ROWS = 256
MAX_PARTS = 8


def _prompt(value: object) -> object:
    """Before the types are looked at, which would give each bad id an error of its own."""
    if value in ("", []):
        raise PydanticCustomError("too_short", "This must not be empty")
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not all(type(id) is int for id in value):
        raise PydanticCustomError("prompt", "This must be text or a list of token ids (integers)")
    return value


class PartBody(Strict):
    """A stored prefix; `version` null: the task's active one."""

    task_id: TaskId
    version: VersionNumber | None = None

    def to_service(self) -> PartName:
        return PartName(self.task_id, self.version)


NotEmpty = Field(min_length=1)
Tokens = Annotated[
    Annotated[Text, NotEmpty] | Annotated[list[int], NotEmpty], BeforeValidator(_prompt)
]
Parts = Annotated[list[PartBody], Field(min_length=1, max_length=MAX_PARTS)]


class RowBody(Strict):
    """One generation. `task_id` null: the bare model; `version` null: the active one.

    `compose` names several prefixes instead of one task; their stored defaults stay out of it.
    """

    task_id: TaskId | None = None
    version: VersionNumber | None = None
    compose: Parts | None = None
    input: Annotated[Tokens, Field(description="Text, or a list of token ids.")]
    decoder_input: Annotated[
        Tokens | None,
        Field(description="What an encoder-decoder model's decoder, or an infix, goes on with."),
    ] = None
    parameters: ParametersBody | None = None

    def to_service(self, request_id: str, rows: int = 1) -> GenerationRequest:
        return GenerationRequest(
            rows=rows,
            input=token_input(self.input),
            task_id=self.task_id,
            version=self.version,
            compose=tuple(part.to_service() for part in self.compose or ()),
            decoder_input=None if self.decoder_input is None else token_input(self.decoder_input),
            parameters={} if self.parameters is None else self.parameters.to_service(),
            request_id=request_id,
        )


class GenerateBody(RowBody):
    """One generation, answered in one piece or, with `stream`, as its tokens come."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "task_id": "e2e",
                    "input": "name : Blue Spice | Type : coffee shop",
                    "parameters": {"max_new_tokens": 32, "stop": ["\n"]},
                }
            ]
        }
    )

    stream: bool | None = None


class BatchBody(Strict):
    """Up to 256 generations. Rows are validated one by one, so that each has its own error."""

    requests: Annotated[list[SkipValidation[RowBody]], Field(min_length=1, max_length=MAX_ROWS)]


class ActivateBody(Strict):
    """Which version is served when none is asked for."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"version": 2}]})

    version: VersionNumber


class ErrorDetail(BaseModel):
    """`message` says what to do; `param` is a dotted path; `reason` refines some codes."""

    code: str
    message: str
    param: str | None
    request_id: str
    reason: Annotated[str | None, Field(exclude_if=lambda reason: reason is None)] = None


class ErrorBody(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDetail


def token_input(given: str | list[int]) -> TokenInput:
    return given if isinstance(given, str) else tuple(given)
