"""`prefixmux prefixes push` and `compose`: what makes a new version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prefixmux.cli import words as said
from prefixmux.cli.output import show_json
from prefixmux.cli.session import JsonOption, KeyOption, ServerOption, TaskArgument, connected
from prefixmux.client import Client
from prefixmux.stored import Version

UseOption = Annotated[bool, typer.Option("--activate/--no-activate", help="Serve it from now on.")]
DescriptionOption = Annotated[str | None, typer.Option(help="A note kept with the version.")]


def push(
    task: TaskArgument,
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
    template: said.TemplateOption = None,
    param: said.DefaultOption = None,
    task_index: Annotated[
        int | None, typer.Option(help="Which task of a multitask adapter.")
    ] = None,
    use: UseOption = True,
    description: DescriptionOption = None,
    server: ServerOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
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
    defaults = said.parameters(param) or None

    def stored(client: Client) -> Version:
        if path is not None:
            return client.prefixes.upload(
                task, path, use, description, template, defaults, task_index
            )
        return client.prefixes.upload_text(
            task,
            prompt,
            examples=shown,
            activate=use,
            description=description,
            template=template,
            parameters=defaults,
        )

    with connected(server, api_key, as_json=as_json) as client:
        _show(stored(client), as_json=as_json)


def compose(
    task: TaskArgument,
    parts: Annotated[
        list[str],
        typer.Argument(metavar="TASK[@VERSION]...", help="Stored prefixes, in this order."),
    ],
    template: said.TemplateOption = None,
    param: said.DefaultOption = None,
    use: UseOption = True,
    description: DescriptionOption = None,
    server: ServerOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a task of stored prefixes, one behind another."""
    named = [said.part(word) for word in parts]
    defaults = said.parameters(param) or None
    with connected(server, api_key, as_json=as_json) as client:
        version = client.prefixes.compose(
            task,
            named,
            activate=use,
            description=description,
            template=template,
            parameters=defaults,
        )
        _show(version, as_json=as_json)


def _show(version: Version, *, as_json: bool) -> None:
    if as_json:
        show_json(version.model_dump(mode="json"))
    else:
        typer.echo(f"{version.task_id} version {version.version} {version.prefix_digest}")
