"""What words of a command line stand for. Each raises a usage error that names the word."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from prefixmux.requests import Example, Part

ParamOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        "-p",
        metavar="NAME=JSON",
        help="Any other parameter, e.g. -p min_p=0.1; repeatable.",
    ),
]
TemplateOption: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="Text around a request's {input}, stored with the version."),
]
DefaultOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        "-p",
        metavar="NAME=JSON",
        help="Stored for requests that leave it out, e.g. -p max_new_tokens=40; repeatable.",
    ),
]

ComposeOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--compose", metavar="TASK[@VERSION]", help="Instead of TASK, one behind another."
    ),
]
VersionOption: TypeAlias = Annotated[int | None, typer.Option(help="Default: the active one.")]
DecoderInputOption: TypeAlias = Annotated[
    str | None, typer.Option(metavar="TEXT", help="What a decoder, or an infix, goes on with.")
]
IdsOption: TypeAlias = Annotated[bool, typer.Option("--ids", help="Tokens are ids: 5,17,2.")]


def task_and_text(words: list[str], compose: list[str] | None) -> tuple[str | None, str]:
    """Of `[TASK] INPUT`."""
    if len(words) > 2:
        raise typer.BadParameter("Quote the input: [TASK] INPUT are two arguments at most.")
    if len(words) == 2 and compose:
        raise typer.BadParameter("Name the prefixes as TASK or with --compose, not both.")
    text = stdin() if words[-1] == "-" else words[-1]
    return (words[0] if len(words) == 2 else None), text


def parameters(items: Iterable[str] | None) -> dict[str, object]:
    """Of `NAME=JSON`."""
    return dict(_parameter(item) for item in items or ())


def part(word: str) -> Part:
    """Of `TASK` or `TASK@VERSION`; no task id holds an @."""
    task_id, at, version = word.partition("@")
    if not at:
        return task_id
    if not (version.isascii() and version.isdecimal()):
        raise typer.BadParameter(f"{word!r} is not TASK or TASK@VERSION.")
    return task_id, int(version)


def token_ids(text: str) -> list[int]:
    try:
        return [int(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise typer.BadParameter("With --ids, tokens are integers like 5,17,2.") from error


def stdin() -> str:
    """Less its last newline, as a shell's substitution has it."""
    try:
        return sys.stdin.read().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise typer.BadParameter("stdin is not UTF-8.") from error


def text_of(path: Path) -> str:
    """Less its last newline, which editors add."""
    try:
        return path.read_text("utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{path} is not UTF-8.") from error


def examples_of(path: Path) -> list[Example]:
    """One object with `input` and `output` a line; empty lines say nothing."""
    lines = enumerate(text_of(path).split("\n"), 1)
    return [_example(path, number, line) for number, line in lines if line.strip()]


def _example(path: Path, number: int, line: str) -> Example:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.keys() != {"input", "output"}:
        raise typer.BadParameter(
            f'{path}, line {number}, is not {{"input": "...", "output": "..."}}.'
        )
    return found


def _parameter(item: str) -> tuple[str, object]:
    name, equals, value = item.partition("=")
    try:
        if not equals or not name.isidentifier():
            raise ValueError(item)
        return name, json.loads(value)
    except ValueError as error:
        raise typer.BadParameter(f"{item!r} is not NAME=JSON.") from error
