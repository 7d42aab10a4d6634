"""`prefixmux prefixes`: push, compose, ls, show, rm, activate."""

from __future__ import annotations

from typing import Annotated

import typer

from prefixmux.cli.output import show_json, show_table
from prefixmux.cli.push import compose, push
from prefixmux.cli.session import JsonOption, KeyOption, ServerOption, TaskArgument, connected
from prefixmux.cli.show import show
from prefixmux.stored import Task


def build_app() -> typer.Typer:
    app = typer.Typer(help="Manage the prefixes of your tasks.", no_args_is_help=True)
    app.command("push")(push)
    app.command("compose")(compose)
    app.command("ls")(ls)
    app.command("show")(show)
    app.command("rm")(rm)
    app.command("activate")(activate)
    return app


def ls(
    query: Annotated[str | None, typer.Option(help="Only ids that contain this.")] = None,
    server: ServerOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the tasks."""
    with connected(server, api_key, as_json=as_json) as client:
        tasks = list(client.prefixes.list(query=query))
    if as_json:
        show_json({"items": [task.model_dump(mode="json") for task in tasks]})
    else:
        show_table(["TASK", "ACTIVE", "VERSIONS", "METHOD", "TOKENS"], map(_task_row, tasks))


def rm(
    task: TaskArgument,
    version: Annotated[int | None, typer.Option(help="Only this version.")] = None,
    server: ServerOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete a task, or one of its versions that is not active."""
    with connected(server, api_key, as_json=as_json) as client:
        client.prefixes.delete(task, version)
    if as_json:
        show_json({"task_id": task, "version": version, "deleted": True})
    else:
        typer.echo(f"deleted {task}" + ("" if version is None else f" version {version}"))


def activate(
    task: TaskArgument,
    version: Annotated[int, typer.Argument(metavar="VERSION", help="The version to serve.")],
    server: ServerOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a version the one that requests get when they name none."""
    with connected(server, api_key, as_json=as_json) as client:
        found = client.prefixes.activate(task, version)
    if as_json:
        show_json(found.model_dump(mode="json"))
    else:
        typer.echo(f"{found.task_id}: version {found.active_version} is active")


def _task_row(task: Task) -> tuple[object, ...]:
    active = task.active
    method, tokens = (active.method, active.prefix_tokens) if active else (None, None)
    return task.task_id, task.active_version, task.versions, method, tokens
