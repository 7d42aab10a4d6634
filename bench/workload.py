"""What every peer has to do: the model's shape, the prompts, and how long each task's prefix is.

All of it follows from fixed seeds, so that two runs, and all peers of one run, do the same work.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from bench.shapes import ModelShape

_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Workload:
    """Request i asks task i, with `prompt_tokens` random tokens, for `new_tokens` ones past any
    EOS: the greedy ones, or the best of `beams` beams."""

    shape: ModelShape
    prompt_tokens: int = 64
    new_tokens: int = 64
    shortest_prefix: int = 10
    longest_prefix: int = 200
    beams: int = 1

    @property
    def words(self) -> str:
        choice = "greedy" if self.beams == 1 else f"the best of {self.beams} beams"
        return (
            f"{self.shape.words}, random weights; {self.prompt_tokens} prompt tokens, "
            f"{self.new_tokens} new tokens, {choice}, EOS ignored; prefixes of "
            f"{self.shortest_prefix}..{self.longest_prefix} virtual tokens, resident "
            f"({self.prefix_tokens(0)} where all are of one task)"
        )

    def prefix_tokens(self, task: int) -> int:
        """Spread evenly; task 0 has the mean length, and any number of first tasks about it."""
        spread = self.longest_prefix - self.shortest_prefix
        return self.shortest_prefix + round(spread * math.modf(0.5 + task * _GOLDEN)[0])

    def prompt(self, request: int) -> list[int]:
        return self._tokens(Random(request), self.prompt_tokens)

    def prefix_text(self, task: int) -> list[int]:
        """Token ids of a text that is as long as the task's prefix."""
        return self._tokens(Random(f"text {task}"), self.prefix_tokens(task))

    def _tokens(self, random: Random, count: int) -> list[int]:
        """None of the special ones, which come first."""
        return [random.randrange(3, self.shape.vocabulary) for _ in range(count)]


def task_id(task: int) -> str:
    return f"task-{task}"
