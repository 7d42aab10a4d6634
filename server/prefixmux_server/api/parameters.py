"""The parameters of a generation as clients write them, in a request or beside an upload.

A parameter that is null is one left out; the service owns the defaults.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from prefixmux_server.api.http.values import Strict, well_formed
from prefixmux_store.types import JSON

MAX_SEED = 2**63 - 1
MAX_STOP_BYTES = 256
MAX_NGRAM = 2**31 - 1


def _short(stop: str) -> str:
    if not 1 <= len(well_formed(stop).encode()) <= MAX_STOP_BYTES:
        raise PydanticCustomError("stop_bytes", "A stop string has 1 to 256 bytes")
    return stop


def _early_stopping(value: object) -> object:
    """Before the types are looked at, which would give each member an error of its own."""
    if not isinstance(value, bool | None) and value != "never":
        raise PydanticCustomError("early_stopping", 'This must be true, false or "never"')
    return value


Stop = Annotated[str, AfterValidator(_short), Field(json_schema_extra={"minLength": 1})]


class ParametersBody(Strict):
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
    n: Annotated[int, Field(ge=1, le=16)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    prompt_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    num_beams: Annotated[int, Field(ge=1, le=16)] | None = None
    num_return: Annotated[int, Field(ge=1, le=16)] | None = None
    length_penalty: Annotated[float, Field(ge=-10, le=10)] | None = None
    early_stopping: Annotated[bool | Literal["never"] | None, BeforeValidator(_early_stopping)] = (
        None
    )
    no_repeat_ngram_size: Annotated[int, Field(ge=0, le=MAX_NGRAM)] | None = None
    beam_length_includes_prompt: bool | None = None

    def to_service(self) -> dict[str, JSON]:
        """Those that were given."""
        return self.model_dump(exclude_none=True)
