"""What is asked of a server, as it is sent.

Names and meanings are the server's contract. Nothing is validated here: the server's answer is
the only truth about what it accepts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import index
from typing import TypeAlias

TokenInput: TypeAlias = str | Sequence[int]
# A stored prefix: its task (in the active version), its task and version, or the wire's object.
Part: TypeAlias = str | tuple[str, int | None] | Mapping[str, object]
# An input and its output, or the wire's object.
Example: TypeAlias = tuple[str, str] | Mapping[str, object]


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
