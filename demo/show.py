"""Prints what the demonstration sent and got, one table for each batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from demo.steps import shared_steps
from prefixmux.types import GenerateResponse

BARE = "(bare model)"


@dataclass(frozen=True)
class Row:
    """One row of a batch; `expected` is the held-out answer, None for the bare model."""

    task_id: str | None
    prompt: str
    expected: str | None


def show(
    console: Console,
    title: str,
    rows: Sequence[Row],
    responses: Sequence[GenerateResponse],
    steps: Sequence[Mapping[str, Any]],
) -> None:
    """One line a row: what went in, what came out, and whom it shared its engine steps with."""
    table = Table(title=title, title_justify="left", show_lines=True)
    table.add_column("row", justify="right")
    table.add_column("task", no_wrap=True)
    table.add_column("prefix", justify="right")
    table.add_column("input", ratio=3)
    table.add_column("output", ratio=4)
    table.add_column("engine steps")
    for number, (row, response) in enumerate(zip(rows, responses, strict=True)):
        table.add_row(
            str(number),
            row.task_id or BARE,
            str(response.usage.prefix_tokens),
            Text(row.prompt),
            _output(row, response),
            str(shared_steps(steps, response.id) or "no longer recorded"),
        )
    console.print(table)


def _output(row: Row, response: GenerateResponse) -> Text:
    """What was generated; beneath it the held-out answer, where it differs."""
    got = (response.text or "").strip()
    text = Text(got, style="bold" if row.task_id else "")
    if row.expected is None:
        return text
    if got == row.expected.strip():
        return text.append("\n(equal to the held-out answer)", style="not bold dim")
    return text.append(f"\n(held-out answer: {row.expected.strip()})", style="not bold dim")
