"""`prefixmux generate`: one row, from the arguments or stdin, to stdout."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from prefixmux.cli.output import show_json
from prefixmux.cli.session import JsonOption, KeyOption, ServerOption, connected
from prefixmux.types import GenerateResponse

Words = Annotated[
    list[str],
    typer.Argument(
        metavar="[TASK] INPUT",
        help="The task (none: the bare model), and the text to continue"
        " (-: stdin, less its last newline).",
        show_default=False,
    ),
]
Stop = Annotated[
    list[str] | None, typer.Option("--stop", metavar="TEXT", help="End before it; repeatable.")
]
Extra = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        "-p",
        metavar="NAME=JSON",
        help="Any other parameter, e.g. -p min_p=0.1; repeatable.",
    ),
]

# What the SDK's `generate` takes beside parameters.
NOT_PARAMETERS = frozenset({"self", "task_id", "input", "version"})


def generate(
    words: Words,
    version: Annotated[int | None, typer.Option(help="Default: the active one.")] = None,
    ids: Annotated[bool, typer.Option("--ids", help="INPUT is token ids: 5,17,2.")] = False,
    max_new_tokens: Annotated[int | None, typer.Option(help="Default: the server's.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    top_k: Annotated[int | None, typer.Option(help="0 is off.")] = None,
    top_p: Annotated[float | None, typer.Option(help="1 is off.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same sample.")] = None,
    stop: Stop = None,
    param: Extra = None,
    server: ServerOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Generate for one input with a task's prefix."""
    task_id, text = _task_and_text(words)
    named = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
        "stop": stop,
    }
    with connected(server, api_key, as_json=as_json) as client:
        answer = client.generate(
            task_id,
            _token_ids(text) if ids else text,
            version=version,
            **(named | dict(_parameter(item) for item in param or ())),
        )
    show_json(answer.model_dump(mode="json")) if as_json else _show(answer)


def _task_and_text(words: list[str]) -> tuple[str | None, str]:
    if len(words) > 2:
        raise typer.BadParameter("Quote the input: [TASK] INPUT are two arguments at most.")
    text = words[-1]
    if text == "-":
        text = _stdin()
    return (words[0] if len(words) == 2 else None), text


def _stdin() -> str:
    try:
        return sys.stdin.read().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise typer.BadParameter("stdin is not UTF-8.") from error


def _token_ids(text: str) -> list[int]:
    try:
        return [int(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise typer.BadParameter("With --ids, INPUT is integers like 5,17,2.") from error


def _parameter(item: str) -> tuple[str, object]:
    name, equals, value = item.partition("=")
    try:
        if not equals or not name.isidentifier() or name in NOT_PARAMETERS:
            raise ValueError(item)
        return name, json.loads(value)
    except ValueError as error:
        raise typer.BadParameter(f"{item!r} is not NAME=JSON.") from error


def _show(answer: GenerateResponse) -> None:
    for output in answer.outputs:
        text = output.text
        typer.echo(" ".join(map(str, output.token_ids)) if text is None else text)
