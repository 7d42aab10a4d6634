"""`prefixmux generate`: one row, from the arguments or stdin, to stdout."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from prefixmux.cli import words as said
from prefixmux.cli.output import show_json
from prefixmux.cli.session import JsonOption, KeyOption, ServerOption, connected
from prefixmux.types import GenerateResponse, Output

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
Compose = Annotated[
    list[str] | None,
    typer.Option(
        "--compose", metavar="TASK[@VERSION]", help="Instead of TASK, one behind another."
    ),
]

# What the SDK's `generate` takes beside parameters.
NOT_PARAMETERS = frozenset({"self", "task_id", "input", "version", "decoder_input", "compose"})


def generate(
    words: Words,
    version: Annotated[int | None, typer.Option(help="Default: the active one.")] = None,
    compose: Compose = None,
    decoder_input: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What a decoder, or an infix, goes on with.")
    ] = None,
    ids: Annotated[bool, typer.Option("--ids", help="Tokens are ids: 5,17,2.")] = False,
    max_new_tokens: Annotated[int | None, typer.Option(help="Default: the server's.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    top_k: Annotated[int | None, typer.Option(help="0 is off.")] = None,
    top_p: Annotated[float | None, typer.Option(help="1 is off.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same sample.")] = None,
    stop: Stop = None,
    num_beams: Annotated[int | None, typer.Option(help="Search with so many beams.")] = None,
    num_return: Annotated[int | None, typer.Option(help="Print so many of them.")] = None,
    length_penalty: Annotated[
        float | None, typer.Option(help="Above 0 favours long beams. Default 1.")
    ] = None,
    early_stopping: Annotated[
        str | None, typer.Option(metavar="true|false|never", help="When a search is over.")
    ] = None,
    no_repeat_ngram_size: Annotated[
        int | None, typer.Option(help="No so many tokens in a row come twice.")
    ] = None,
    param: said.ParamOption = None,
    server: ServerOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Generate for one input with a task's prefix."""
    task_id, text = _task_and_text(words, compose)
    named: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
        "stop": stop,
        "num_beams": num_beams,
        "num_return": num_return,
        "length_penalty": length_penalty,
        "early_stopping": _early_stopping(early_stopping),
        "no_repeat_ngram_size": no_repeat_ngram_size,
        **_others(param),
    }
    with connected(server, api_key, as_json=as_json) as client:
        answer = client.generate(
            task_id,
            said.token_ids(text) if ids else text,
            version=version,
            decoder_input=said.token_ids(decoder_input) if ids and decoder_input else decoder_input,
            compose=[said.part(word) for word in compose or ()],
            **named,
        )
    show_json(answer.model_dump(mode="json")) if as_json else _show(answer)


def _task_and_text(words: list[str], compose: list[str] | None) -> tuple[str | None, str]:
    if len(words) > 2:
        raise typer.BadParameter("Quote the input: [TASK] INPUT are two arguments at most.")
    if len(words) == 2 and compose:
        raise typer.BadParameter("Name the prefixes as TASK or with --compose, not both.")
    text = said.stdin() if words[-1] == "-" else words[-1]
    return (words[0] if len(words) == 2 else None), text


def _others(param: list[str] | None) -> dict[str, object]:
    found = said.parameters(param)
    for name in NOT_PARAMETERS & found.keys():
        raise typer.BadParameter(f"{name} is no parameter; give it as an argument or an option.")
    return found


def _early_stopping(word: str | None) -> bool | str | None:
    if word not in (None, "true", "false", "never"):
        raise typer.BadParameter("--early-stopping is true, false or never.")
    return json.loads(word) if word in ("true", "false") else word


def _show(answer: GenerateResponse) -> None:
    several = len(answer.outputs) > 1
    for output in answer.outputs:
        score = f"{output.score:.4f}\t" if several and output.score is not None else ""
        typer.echo(score + _text(output))


def _text(output: Output) -> str:
    return " ".join(map(str, output.token_ids)) if output.text is None else output.text
