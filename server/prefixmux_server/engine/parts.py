"""One step's message in several, where it has much to tell: reading one holds up all others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from prefixmux_server.engine.messages import PromptLogprobs, StepOutput

# Tokens of prompts with their log-probabilities: some milliseconds to read at twenty likely ones.
MOST_TOLD = 256


def parts(output: StepOutput) -> Iterator[StepOutput]:
    """In the order in which it would be read. What starts is in the first, the record and what
    ends in the last."""
    *before, last = _cut(output.prompts) or [()]
    started = output.started
    for prompts in before:
        yield StepOutput(None, started=started, prompts=prompts)
        started = ()
    yield replace(output, started=started, prompts=last)


def _cut(prompts: Sequence[PromptLogprobs]) -> list[tuple[PromptLogprobs, ...]]:
    found: list[tuple[PromptLogprobs, ...]] = []
    room = 0
    for prompt in prompts:
        told = prompt.logprobs
        while told:
            if not room:
                found.append(())
                room = MOST_TOLD
            found[-1] += (PromptLogprobs(prompt.id, told[:room]),)
            told, room = told[room:], max(room - len(told), 0)
    return found
