"""How answers and failures are printed: JSON as on the wire, or text for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from prefixmux.cli.checks.finding import Finding
from prefixmux.errors import APIStatusError

# Wide enough that nothing is cut when the output is a file or a pipe.
PIPE_WIDTH = 1000
_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def show_json(value: object) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False))


def show_error(error: Exception, *, as_json: bool) -> None:
    """On stderr, so that stdout holds answers only."""
    if not as_json:
        typer.echo(f"error: {error}", err=True)
        return
    body: dict[str, object] = {"code": None, "message": str(error)}
    if isinstance(error, APIStatusError):
        body = {
            "code": error.code,
            "message": error.message,
            "param": error.param,
            "reason": error.reason,
            "request_id": error.request_id,
            "status": error.status_code,
        }
    typer.echo(json.dumps({"error": body}, ensure_ascii=False), err=True)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row))
    _print(table)


def show_findings(findings: Iterable[Finding]) -> None:
    """One a line, and what to do about it under it."""
    console = _console()
    for finding in findings:
        line = Text(f"{finding.state:<5}", style=_STYLES[finding.state])
        line.append(f"{finding.check:<13}", style="bold")
        line.append(_cell(finding.message), style="default")
        console.print(line)
        if finding.advice is not None:
            console.print(Text(f"{'':<18}{_cell(finding.advice)}", style="italic"))


def show_fields(fields: Iterable[tuple[str, object]]) -> None:
    """One a line, by name."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in fields:
        table.add_row(name, _cell(value))
    _print(table)


def printable(text: str, keep: str = "") -> str:
    """Without anything that a terminal obeys."""
    return "".join(char if char.isprintable() or char in keep else "?" for char in text)


def _cell(value: object) -> str:
    """Shown as it is: nothing in it is markup. None is a dash."""
    return printable("-" if value is None else str(value))


def _print(table: Table) -> None:
    _console().print(table)


def _console() -> Console:
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(width=width, markup=False, highlight=False, emoji=False)
