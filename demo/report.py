"""Writes `RESULTS.md`: one table, the bare model beside every prefix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from demo.tasks import Task

HEAD = """# What the bundled prefixes do

Every row: the same held-out examples (test split, sources that were not trained on), greedy, \
float32, first without a prefix, then with it.
*loss* is the mean cross-entropy in nats per answer token (end of sequence included); *exact* is \
the share of answers equal to an accepted output; *words* is the mean F1 of an answer's words \
with the closest accepted output.

Measured on {day} by `python -m demo.evaluate --data DATA`. Model: {parameters:,} parameters.

| task | what | prefix tokens | examples | loss | exact | words | prefix parameters | of model \
| file |
|---|---|---:|---:|---|---|---|---:|---:|---:|
"""

FOOT = """
Sentences can be right without being equal to an accepted one, so *exact* says little where the \
answer is a sentence. What this model gets right is the kind of answer, its form and often the \
names in it; it is too small to be relied on for every fact. `examples.json` holds the first few \
of these examples, those with the closest answers first, and `make demo` shows the first of each.
"""


@dataclass(frozen=True)
class Result:
    """One task's figures; shares are 0..1, losses in nats per token, sizes in bytes."""

    task: Task
    examples: int
    bare_loss: float
    loss: float
    bare_exact: float
    exact: float
    bare_words: float
    words: float
    parameters: int
    file_bytes: int
    model_parameters: int


def _row(result: Result) -> str:
    cells = (
        result.task.task_id,
        result.task.title,
        str(result.task.prefix_tokens),
        str(result.examples),
        f"{result.bare_loss:.2f} → {result.loss:.2f}",
        f"{result.bare_exact:.0%} → {result.exact:.0%}",
        f"{result.bare_words:.2f} → {result.words:.2f}",
        f"{result.parameters:,}",
        f"{result.parameters / result.model_parameters:.2%}",
        f"{result.file_bytes / 1000:.0f} kB",
    )
    return "| " + " | ".join(cells) + " |\n"


def write_report(results: Sequence[Result], out: Path, day: date) -> None:
    """Writes the whole file anew."""
    head = HEAD.format(day=day.isoformat(), parameters=results[0].model_parameters)
    out.write_text(head + "".join(map(_row, results)) + FOOT, encoding="utf-8")
