"""A step's message in parts: nothing is lost, nothing is told out of order, none is long."""

from __future__ import annotations

from dataclasses import replace

import pytest
from service.fakes import likely

from prefixmux_server.engine.messages import PromptLogprobs, Started, StepOutput, TokenDelta
from prefixmux_server.engine.parts import MOST_TOLD, parts


def step(*lengths: int) -> StepOutput:
    """Rows that tell of so many tokens each."""
    return StepOutput(
        None,
        deltas=(TokenDelta("a", (1,)),),
        started=(Started("a", (), (), 0.0, 0.0),),
        prompts=tuple(
            PromptLogprobs(f"r{row}", tuple(likely(place % 50, 1) for place in range(length)))
            for row, length in enumerate(lengths)
        ),
    )


@pytest.mark.parametrize("lengths", [(), (1,), (MOST_TOLD,), (3, MOST_TOLD - 3, 5)])
@pytest.mark.parametrize("more", [(), (1,), (2 * MOST_TOLD + 1, 7)])
def test_parts_say_what_the_whole_says(lengths: tuple[int, ...], more: tuple[int, ...]) -> None:
    whole = step(*lengths, *more)
    found = list(parts(whole))
    sizes = [sum(len(prompt.logprobs) for prompt in part.prompts) for part in found]
    assert max(sizes) <= MOST_TOLD
    assert all(size == MOST_TOLD for size in sizes[:-1])
    for row, prompt in enumerate(whole.prompts):
        told = [p.logprobs for part in found for p in part.prompts if p.id == f"r{row}"]
        assert sum(told, ()) == prompt.logprobs
    assert found[0].started == whole.started
    assert all(part == StepOutput(None, prompts=part.prompts) for part in found[1:-1])
    assert [part.deltas for part in found] == [()] * (len(found) - 1) + [whole.deltas]
    if len(found) == 1:
        assert found == [replace(whole, prompts=found[0].prompts)]
