"""The bodies a client may send: strict types, closed ranges, no unknown field.

What a value means is the service's; what depends on the model is checked there. A parameter that
is null is one left out.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SkipValidation
from pydantic_core import PydanticCustomError

from prefixmux_server.service.request import GenerationRequest, Parameters

TASK_ID = r"^[a-z0-9][a-z0-9._-]{0,63}$"
MAX_VERSION = 2**63 - 1
MAX_SEED = 2**63 - 1
MAX_STOP_BYTES = 256
MAX_ROWS = 256

T = TypeVar("T")


def _well_formed(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("surrogate", "Text must not hold lone surrogates") from None
    return text


def _short(stop: str) -> str:
    if not 1 <= len(_well_formed(stop).encode()) <= MAX_STOP_BYTES:
        raise PydanticCustomError("stop_bytes", "A stop string has 1 to 256 bytes")
    return stop


def _prompt(value: object) -> object:
    """Before the types are looked at, which would give each bad id an error of its own."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not all(type(id) is int for id in value):
        raise PydanticCustomError("prompt", "This must be text or a list of token ids (integers)")
    return value


def _only(default: T) -> AfterValidator:
    """A feature this server does not have: nothing but its default is accepted."""

    def check(value: T) -> T:
        if value != default:
            raise PydanticCustomError("unsupported", "This is not supported by this server")
        return value

    return AfterValidator(check)


Text = Annotated[str, AfterValidator(_well_formed)]
Stop = Annotated[str, AfterValidator(_short), Field(json_schema_extra={"minLength": 1})]
TaskId = Annotated[str, Field(pattern=TASK_ID, examples=["e2e"])]
VersionNumber = Annotated[int, Field(ge=1, le=MAX_VERSION)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class ParametersBody(_Strict):
    """How to generate; the order is penalties, temperature, top_k, top_p, min_p."""

    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    min_new_tokens: Annotated[int, Field(ge=0)] | None = None
    temperature: Annotated[float, Field(ge=0, le=10)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    stop: Annotated[list[Stop], Field(max_length=16)] | None = None
    stop_token_ids: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=64)] | None = None
    ignore_eos: bool | None = None
    timeout_s: Annotated[float, Field(gt=0, le=3600)] | None = None
    n: Annotated[int, Field(ge=1, le=16), _only(1)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=20), _only(None)] | None = None
    prompt_logprobs: Annotated[int, Field(ge=0, le=20), _only(None)] | None = None
    num_beams: Annotated[int, Field(ge=1, le=16), _only(1)] | None = None
    num_return: Annotated[int, Field(ge=1, le=16), _only(1)] | None = None
    length_penalty: Annotated[float, _only(1.0)] | None = None
    early_stopping: Annotated[bool, _only(False)] | None = None
    no_repeat_ngram_size: Annotated[int, Field(ge=0), _only(0)] | None = None
    beam_length_includes_prompt: Annotated[bool, _only(False)] | None = None

    def to_service(self) -> Parameters:
        return Parameters(
            max_new_tokens=self.max_new_tokens,
            min_new_tokens=self.min_new_tokens or 0,
            temperature=self.temperature or 0.0,
            top_k=self.top_k or 0,
            top_p=_default(self.top_p, 1.0),
            min_p=self.min_p or 0.0,
            repetition_penalty=_default(self.repetition_penalty, 1.0),
            frequency_penalty=self.frequency_penalty or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            seed=self.seed,
            stop=tuple(self.stop or ()),
            stop_token_ids=tuple(self.stop_token_ids or ()),
            ignore_eos=bool(self.ignore_eos),
            timeout_s=self.timeout_s,
        )


class RowBody(_Strict):
    """One generation. `task_id` null: the bare model; `version` null: the active one."""

    task_id: TaskId | None = None
    version: VersionNumber | None = None
    input: Annotated[
        Text | list[int],
        Field(min_length=1, description="Text, or a list of token ids."),
        BeforeValidator(_prompt),
    ]
    parameters: ParametersBody | None = None
    decoder_input: Annotated[Any, _only(None)] = None
    compose: Annotated[Any, _only(None)] = None

    def to_service(self) -> GenerationRequest:
        parameters = self.parameters or ParametersBody()
        return GenerationRequest(
            input=self.input if isinstance(self.input, str) else tuple(self.input),
            task_id=self.task_id,
            version=self.version,
            parameters=parameters.to_service(),
        )


class GenerateBody(RowBody):
    """One generation, answered in one piece."""

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

    stream: Annotated[bool, _only(False)] | None = None


class BatchBody(_Strict):
    """Up to 256 generations. Rows are validated one by one, so that each has its own error."""

    requests: Annotated[list[SkipValidation[RowBody]], Field(min_length=1, max_length=MAX_ROWS)]


class ActivateBody(_Strict):
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


def _default(value: T | None, default: T) -> T:
    return default if value is None else value
