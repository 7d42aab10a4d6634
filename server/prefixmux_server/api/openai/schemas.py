"""What OpenAI's clients may send, and what becomes of each field.

What only concerns the client or the bookkeeping is taken and passed over; what would change the
answer and is not done here is refused by its name. Beside OpenAI's fields stand a few of ours
that other servers know by the same names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from prefixmux_server.api.http.values import Strict, Text
from prefixmux_server.api.openai.models import named
from prefixmux_server.api.openai.unsupported import unsupported
from prefixmux_server.api.parameters import MAX_SEED, Stop
from prefixmux_server.engine.model_info import ModelInfo
from prefixmux_server.service.generation.request import GenerationRequest
from prefixmux_store.types import JSON

MAX_STOPS = 16
# By what they are called in a request and in the contract of `/generate`.
NAMES: Mapping[str, str] = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "n": "n",
    "stop": "stop",
    "stop_token_ids": "stop_token_ids",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repetition_penalty": "repetition_penalty",
    "ignore_eos": "ignore_eos",
    "min_tokens": "min_new_tokens",
    "num_beams": "num_beams",
}


def _stops(value: object) -> object:
    """Before the types are looked at, which would give each member an error of its own."""
    return [value] if isinstance(value, str) else value


def _top_k(value: object) -> object:
    """Off is -1 elsewhere."""
    return 0 if value == -1 else value


NonEmpty = Annotated[str, Field(min_length=1)]
Stops = Annotated[list[NonEmpty], Field(max_length=MAX_STOPS)]
TopK = Annotated[int, Field(ge=-1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Ignored = Annotated[Any, Field(description="Taken, and passed over.")]


class StreamOptions(Strict):
    """`include_usage`: one more chunk at the end, which says what was used."""

    include_usage: bool | None = None
    include_obfuscation: Ignored = None


class CommonBody(Strict):
    """What completions and chat completions have in common."""

    model: Annotated[Text, Field(min_length=1, examples=["e2e", "e2e@3"])]
    temperature: Annotated[float, Field(ge=0, le=10)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=16)] | None = None
    stop: (
        Annotated[
            list[Stop],
            Field(max_length=MAX_STOPS),
            BeforeValidator(_stops, json_schema_input_type=NonEmpty | Stops),
        ]
        | None
    ) = None
    seed: Annotated[int, Field(ge=-MAX_SEED - 1, le=MAX_SEED)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    top_k: (
        Annotated[int, Field(ge=0), BeforeValidator(_top_k, json_schema_input_type=TopK)] | None
    ) = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    ignore_eos: bool | None = None
    min_tokens: Annotated[int, Field(ge=0)] | None = None
    num_beams: Annotated[int, Field(ge=1, le=16)] | None = None
    stop_token_ids: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=64)] | None = None
    logit_bias: Annotated[Any, unsupported({}, instead="leave logit_bias out")] = None
    user: Ignored = None

    def common(self) -> dict[str, JSON]:
        """Those parameters that were given, by the contract's names."""
        values = {ours: getattr(self, theirs) for theirs, ours in NAMES.items()}
        if self.seed is not None:
            values["seed"] = self.seed % (MAX_SEED + 1)
        return {name: value for name, value in values.items() if value is not None}

    def asked(
        self, base: ModelInfo, parameters: Mapping[str, JSON], usual: Mapping[str, JSON], id: str
    ) -> GenerationRequest:
        """Without its input. Raises `TaskNotFound` for a model that cannot be."""
        part = named(self.model, base)
        return GenerationRequest(
            input="",
            task_id=None if part is None else part.task_id,
            version=None if part is None else part.version,
            parameters=parameters,
            usual=usual,
            request_id=id,
        )

    @property
    def includes_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)
