"""`prefixmux generate`: one row, from the arguments or stdin, to stdout."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from prefixmux.cli import words as said
from prefixmux.cli.output import printable, show_json
from prefixmux.cli.session import Connection
from prefixmux.client import Client
from prefixmux.types import GenerateResponse, Logprob, Output

Words = Annotated[
    list[str],
    typer.Argument(
        metavar="[TASK] INPUT",
        help="The task (none: the bare model), and the text to continue"
        " (-: stdin, less its last newline).",
        show_default=False,
    ),
]

# What the SDK's `generate` takes beside parameters.
NOT_PARAMETERS = frozenset(
    {"self", "task_id", "input", "version", "decoder_input", "compose", "timeout"}
)


@dataclass(frozen=True)
class Sampling:
    """The parameters that have an option of their own."""

    max_new_tokens: Annotated[int | None, typer.Option(help="Default: the server's.")] = None
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None
    top_k: Annotated[int | None, typer.Option(help="0 is off.")] = None
    top_p: Annotated[float | None, typer.Option(help="1 is off.")] = None
    min_p: Annotated[float | None, typer.Option(help="0 is off.")] = None
    seed: Annotated[int | None, typer.Option(help="Same seed, same sample.")] = None
    stop: Annotated[
        list[str] | None, typer.Option("--stop", metavar="TEXT", help="End before it; repeatable.")
    ] = None
    n: Annotated[int | None, typer.Option("--n", "-n", help="Sample so many outputs.")] = None
    logprobs: Annotated[
        int | None,
        typer.Option(help="Show each token's log-probability, and those of so many others."),
    ] = None
    num_beams: Annotated[int | None, typer.Option(help="Search with so many beams.")] = None
    num_return: Annotated[int | None, typer.Option(help="Print so many of them.")] = None
    length_penalty: Annotated[
        float | None, typer.Option(help="Above 0 favours long beams. Default 1.")
    ] = None
    early_stopping: Annotated[
        str | None, typer.Option(metavar="true|false|never", help="When a search is over.")
    ] = None
    no_repeat_ngram_size: Annotated[
        int | None, typer.Option(help="No so many tokens in a row come twice.")
    ] = None
    timeout_s: Annotated[
        float | None, typer.Option("--timeout-s", help="The server's deadline, in seconds.")
    ] = None
    param: said.ParamOption = None

    def parameters(self) -> dict[str, Any]:
        found = vars(self) | {"early_stopping": _early_stopping(self.early_stopping)}
        del found["param"]
        return found | _others(self.param)

    @property
    def several(self) -> bool:
        """Whether more than one text may be told at once."""
        return (self.n or 1) > 1 or (self.num_beams or 1) > 1


def generate(
    words: Words,
    sampling: Sampling,
    connection: Connection,
    version: said.VersionOption = None,
    compose: said.ComposeOption = None,
    decoder_input: said.DecoderInputOption = None,
    ids: said.IdsOption = False,
    stream: Annotated[
        bool | None,
        typer.Option(
            "--stream/--no-stream",
            help="Print as it is made; with --json an object a line. Default: on a terminal.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Generate for one input with a task's prefix."""
    task_id, text = said.task_and_text(words, compose)
    if stream and sampling.several and not connection.as_json:
        raise typer.BadParameter("--stream prints one output; with several, take --json too.")
    row: dict[str, Any] = {
        "task_id": task_id,
        "input": said.token_ids(text) if ids else text,
        "version": version,
        "decoder_input": said.token_ids(decoder_input) if ids and decoder_input else decoder_input,
        "compose": [said.part(word) for word in compose or ()],
        **sampling.parameters(),
    }
    with connection.opened() as client:
        if _streams(stream, sampling, connection):
            _stream(client, row, as_json=connection.as_json)
        else:
            _whole(client.generate(**row), as_json=connection.as_json)


def _streams(asked: bool | None, sampling: Sampling, connection: Connection) -> bool:
    if asked is not None:
        return asked
    plain = not (sampling.several or connection.as_json or sampling.logprobs is not None)
    return plain and sys.stdout.isatty()


def _stream(client: Client, row: dict[str, Any], *, as_json: bool) -> None:
    with client.stream(**row) as stream:
        for event in stream:
            if as_json:
                show_json({"event": "token", **event.model_dump(mode="json")})
            else:
                typer.echo(_shown(_text(event.text, event.token_ids, " ")), nl=False)
        if as_json:
            show_json({"event": "done", **stream.response.model_dump(mode="json")})
        else:
            typer.echo()


def _whole(answer: GenerateResponse, *, as_json: bool) -> None:
    if as_json:
        show_json(answer.model_dump(mode="json"))
        return
    several = len(answer.outputs) > 1
    for output in answer.outputs:
        score = f"{output.score:.4f}\t" if several and output.score is not None else ""
        typer.echo(score + _shown(_text(output.text, output.token_ids)))
        _show_logprobs(output)


def _show_logprobs(output: Output) -> None:
    """One token a line: its log-probability, and those of the likeliest in its place."""
    for token in output.logprobs or ():
        others = "  ".join(map(_logprob, token.top))
        typer.echo(f"  {_logprob(token)}" + (f"  |  {others}" if others else ""))


def _logprob(token: Logprob) -> str:
    name = token.token_id if token.token is None else repr(token.token)
    return f"{name} {token.logprob:.4f}"


def _text(text: str | None, token_ids: tuple[int, ...], end: str = "") -> str:
    return " ".join(map(str, token_ids)) + end if text is None else text


def _shown(text: str) -> str:
    """A model's text may hold anything; a terminal would obey some of it."""
    return printable(text, keep="\n\t") if sys.stdout.isatty() else text


def _others(param: list[str] | None) -> dict[str, object]:
    found = said.parameters(param)
    for name in NOT_PARAMETERS & found.keys():
        raise typer.BadParameter(f"{name} is no parameter; give it as an argument or an option.")
    return found


def _early_stopping(word: str | None) -> bool | str | None:
    if word not in (None, "true", "false", "never"):
        raise typer.BadParameter("--early-stopping is true, false or never.")
    return json.loads(word) if word in ("true", "false") else word
