"""What every peer has to do: the model's shape, the prompts, and how long each task's prefix is.

All of it follows from fixed seeds, so that two runs, and all peers of one run, do the same work.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a GPT-2: the head width is `hidden / heads`."""

    layers: int
    heads: int
    hidden: int
    vocabulary: int
    context: int

    @property
    def dense_parameters(self) -> int:
        """Weights that every token is multiplied with, the output head not counted."""
        return self.layers * 12 * self.hidden**2

    @property
    def head_parameters(self) -> int:
        return self.hidden * self.vocabulary

    @property
    def kv_values(self) -> int:
        """Numbers that one token leaves in the KV cache."""
        return self.layers * 2 * self.hidden


GPT2_SMALL = ModelShape(layers=12, heads=12, hidden=768, vocabulary=50257, context=1024)
TINY = ModelShape(layers=2, heads=2, hidden=32, vocabulary=211, context=512)


@dataclass(frozen=True)
class Workload:
    """Request i asks task i, with `prompt_tokens` random tokens, for `new_tokens` greedy ones."""

    shape: ModelShape = GPT2_SMALL
    prompt_tokens: int = 64
    new_tokens: int = 64
    shortest_prefix: int = 10
    longest_prefix: int = 200

    def prefix_tokens(self, task: int) -> int:
        """Spread evenly; task 0 has the mean length, and any number of first tasks about it."""
        spread = self.longest_prefix - self.shortest_prefix
        return self.shortest_prefix + round(spread * math.modf(0.5 + task * _GOLDEN)[0])

    def prompt(self, request: int) -> list[int]:
        random = Random(request)
        return [random.randrange(3, self.shape.vocabulary) for _ in range(self.prompt_tokens)]


def task_id(task: int) -> str:
    return f"task-{task}"
