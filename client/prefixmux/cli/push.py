"""`prefixmux prefixes push` and `compose`: what makes a new version."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from prefixmux.cli import words as said
from prefixmux.cli.output import show_json
from prefixmux.cli.progress import bar
from prefixmux.cli.session import Connection, TaskArgument
from prefixmux.client import Client
from prefixmux.requests import Kept
from prefixmux.stored import Version


@dataclass(frozen=True)
class KeptOptions:
    """The options for what is kept with a version."""

    template: said.TemplateOption = None
    param: said.DefaultOption = None
    use: Annotated[bool, typer.Option("--activate/--no-activate", help="Serve it from now on.")] = (
        True
    )
    description: Annotated[str | None, typer.Option(help="A note kept with the version.")] = None

    def kept(self) -> Kept:
        defaults = said.parameters(self.param) or None
        return Kept(self.use, self.description, self.template, defaults)


def push(
    task: TaskArgument,
    options: KeptOptions,
    connection: Connection,
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PATH]",
            exists=True,
            show_default=False,
            help="A native .safetensors file or a PEFT adapter's folder.",
        ),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", exists=True, dir_okay=False, help="A prompt, less its last newline."
        ),
    ] = None,
    examples: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.jsonl",
            exists=True,
            dir_okay=False,
            help='One {"input": ..., "output": ...} a line.',
        ),
    ] = None,
    task_index: Annotated[
        int | None, typer.Option(help="Which task of a multitask adapter.")
    ] = None,
) -> None:
    """Upload a prefix, or words to stand before every input, as a new version of a task.

    With --examples, --template shows one of them, as {input} and {output}.
    """
    if sum(source is not None for source in (path, text, examples)) != 1:
        raise typer.BadParameter("Give one of PATH, --text and --examples.")
    if task_index is not None and path is None:
        raise typer.BadParameter("--task-index is for an adapter.")
    prompt = None if text is None else said.text_of(text)
    shown = None if examples is None else said.examples_of(examples)
    kept = vars(options.kept())
    with connection.opened() as client:
        if path is not None:
            version = _upload(client, task, path, kept, task_index, connection)
        else:
            version = client.prefixes.upload_text(task, prompt, examples=shown, **kept)
    _show(version, as_json=connection.as_json)


def compose(
    task: TaskArgument,
    parts: Annotated[
        list[str],
        typer.Argument(metavar="TASK[@VERSION]...", help="Stored prefixes, in this order."),
    ],
    options: KeptOptions,
    connection: Connection,
) -> None:
    """Make a task of stored prefixes, one behind another."""
    named = [said.part(word) for word in parts]
    kept = vars(options.kept())
    with connection.opened() as client:
        version = client.prefixes.compose(task, named, **kept)
    _show(version, as_json=connection.as_json)


def _upload(
    client: Client,
    task: str,
    path: Path,
    kept: dict[str, Any],
    task_index: int | None,
    connection: Connection,
) -> Version:
    with bar(f"uploading {path.name}", wanted=not connection.as_json) as progress:
        return client.prefixes.upload(task, path, task_index=task_index, progress=progress, **kept)


def _show(version: Version, *, as_json: bool) -> None:
    if as_json:
        show_json(version.model_dump(mode="json"))
    else:
        typer.echo(f"{version.task_id} version {version.version} {version.prefix_digest}")
