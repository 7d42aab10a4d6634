"""What is asked of a server, as it is sent.

Names and meanings are the server's contract. Nothing is validated here: the server's answer is
the only truth about what it accepts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import index
from typing import Literal, TypeAlias, TypedDict

from prefixmux.errors import InvalidArgumentError

TokenInput: TypeAlias = str | Sequence[int]
# A stored prefix: its task (in the active version), its task and version, or the wire's object.
Part: TypeAlias = str | tuple[str, int | None] | Mapping[str, object]
# An input and its output, or the wire's object.
Example: TypeAlias = tuple[str, str] | Mapping[str, object]


class Parameters(TypedDict, total=False):
    """How to generate; None is left out, for the version's default or the server's."""

    max_new_tokens: int | None
    min_new_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    no_repeat_ngram_size: int | None
    seed: int | None
    stop: str | Sequence[str] | None
    stop_token_ids: Sequence[int] | None
    ignore_eos: bool | None
    n: int | None
    logprobs: int | None
    prompt_logprobs: int | None
    num_beams: int | None
    num_return: int | None
    length_penalty: float | None
    early_stopping: bool | Literal["never"] | None
    beam_length_includes_prompt: bool | None
    timeout_s: float | None


@dataclass(frozen=True)
class GenerateRequest:
    """One row: `task_id` None is the bare model, or the prefixes of `compose` one behind another;
    `version` None is the task's active one.

    `decoder_input` is what an encoder-decoder model's decoder, or an infix, goes on with.
    """

    task_id: str | None
    input: TokenInput
    version: int | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    decoder_input: TokenInput | None = None
    compose: Sequence[Part] = ()

    def body(self) -> dict[str, object]:
        """The JSON object to send; what is None is left out."""
        decoder_input = None if self.decoder_input is None else _tokens(self.decoder_input)
        return given(
            task_id=self.task_id,
            version=self.version,
            compose=part_bodies(self.compose) or None,
            input=_tokens(self.input),
            decoder_input=decoder_input,
            parameters=given(**self.parameters) or None,
        )


@dataclass(frozen=True)
class ScoreRequest:
    """Targets (texts or ids) whose likelihood after one input is asked for; else as
    `GenerateRequest`."""

    task_id: str | None
    input: TokenInput
    targets: Sequence[TokenInput]
    version: int | None = None
    decoder_input: TokenInput | None = None
    compose: Sequence[Part] = ()
    timeout_s: float | None = None

    def body(self) -> dict[str, object]:
        row = GenerateRequest(
            self.task_id,
            self.input,
            self.version,
            decoder_input=self.decoder_input,
            compose=self.compose,
        )
        targets = [_tokens(target) for target in self.targets]
        return row.body() | given(targets=targets, timeout_s=self.timeout_s)


@dataclass(frozen=True)
class Kept:
    """What is kept with a version, and whether it serves from now on.

    `template` (text around `{input}`) and `parameters` hold for requests that say nothing.
    """

    activate: bool = True
    description: str | None = None
    template: str | None = None
    parameters: Mapping[str, object] | None = None

    def body(self) -> dict[str, object]:
        """As fields of a JSON object."""
        return given(
            activate=self.activate,
            description=self.description,
            template=self.template,
            parameters=None if self.parameters is None else given(**self.parameters),
        )

    def form(self) -> dict[str, str]:
        """As fields of a form."""
        return {
            name: value if isinstance(value, str) else _json_text(value)
            for name, value in self.body().items()
        }


def given(**fields: object) -> dict[str, object]:
    """Those that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def part_bodies(parts: Iterable[Part]) -> list[dict[str, object]]:
    return [_part_body(part) for part in parts]


def example_bodies(examples: Iterable[Example]) -> list[dict[str, object]]:
    return [_example_body(example) for example in examples]


def _part_body(part: Part) -> dict[str, object]:
    if isinstance(part, Mapping):
        return given(**part)
    task_id, version = (part, None) if isinstance(part, str) else part
    return given(task_id=task_id, version=version)


def _example_body(example: Example) -> dict[str, object]:
    if isinstance(example, Mapping):
        return dict(example)
    shown, answer = example
    return {"input": shown, "output": answer}


def _tokens(tokens: TokenInput) -> str | list[int]:
    # `index` takes any integer type (numpy's too) and refuses floats.
    return tokens if isinstance(tokens, str) else [index(token) for token in tokens]


def _json_text(value: object) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"This is not expressible as JSON: {error}") from error
