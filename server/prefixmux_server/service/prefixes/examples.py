"""In-context examples as one text, and what a version has to store for requests to continue it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prefixmux_server.errors import InvalidRequest
from prefixmux_server.service.text.template import (
    MAX_CHARACTERS,
    OUTPUT,
    PLACES,
    fill,
    filled_size,
)
from prefixmux_store.checks import INPUT
from prefixmux_store.errors import InvalidPrefix

USUAL_TEMPLATE = f"{INPUT}\n{OUTPUT}\n\n"
MAX_STOP_BYTES = 256


@dataclass(frozen=True)
class Example:
    """One question and its answer."""

    input: str
    output: str

    @property
    def texts(self) -> dict[str, str]:
        """By the place where each stands."""
        return {INPUT: self.input, OUTPUT: self.output}


@dataclass(frozen=True)
class Demonstration:
    """`text` is the examples one after another, `template` what stands around a request's input
    behind them, `stop` what ends its answer (empty: nothing)."""

    text: str
    template: str
    stop: str


def demonstrate(examples: Sequence[Example], template: str | None) -> Demonstration:
    """Raises `InvalidRequest` for a template that no answer could follow, `InvalidPrefix` for a
    text beyond any model."""
    shape = USUAL_TEMPLATE if template is None else template
    before, place, after = shape.partition(OUTPUT)
    if not place or INPUT not in before or PLACES.search(after):
        raise InvalidRequest(
            f"A template of examples holds {INPUT} and behind it, once, {OUTPUT}.",
            param="template",
        )
    if len(after.encode()) > MAX_STOP_BYTES:
        raise InvalidRequest(
            f"What follows {OUTPUT} ends an answer and has at most {MAX_STOP_BYTES} bytes.",
            param="template",
        )
    if sum(filled_size(shape, example.texts) for example in examples) > MAX_CHARACTERS:
        raise InvalidPrefix(
            "too_long",
            f"The examples make a text of more than {MAX_CHARACTERS} characters; send fewer.",
            param="examples",
        )
    text = "".join(fill(shape, example.texts) for example in examples)
    # A space there would be a token of its own; in the examples it begins the answer's first.
    return Demonstration(text, before.rstrip(" "), after)
