"""In-context examples as one text, and what a version has to store for requests to continue it.

Owns the template's two places, `{input}` and `{output}`; it is no format language.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from prefixmux_server.errors import InvalidRequest
from prefixmux_store.checks import INPUT

OUTPUT = "{output}"
PLACES = re.compile(r"\{(input|output)\}")
USUAL_TEMPLATE = f"{INPUT}\n{OUTPUT}\n\n"
MAX_STOP_BYTES = 256


@dataclass(frozen=True)
class Example:
    """One question and its answer."""

    input: str
    output: str


@dataclass(frozen=True)
class Demonstration:
    """`text` is the examples one after another, `template` what stands around a request's input
    behind them, `stop` what ends its answer (empty: nothing)."""

    text: str
    template: str
    stop: str


def demonstrate(examples: Iterable[Example], template: str | None) -> Demonstration:
    """Raises `InvalidRequest` for a template that no answer could follow."""
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
    text = "".join(_rendered(shape, example) for example in examples)
    # A space there would be a token of its own; in the examples it begins the answer's first.
    return Demonstration(text, before.rstrip(" "), after)


def _rendered(template: str, example: Example) -> str:
    """In one pass: what an example says is never a place."""
    texts = {"input": example.input, "output": example.output}
    return PLACES.sub(lambda place: texts[place[1]], template)
