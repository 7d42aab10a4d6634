"""`prefixmux prefixes`: push, compose, ls, show, versions, rm, activate, pin, unpin, pull."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prefixmux.cli import options
from prefixmux.cli.human import ago, size
from prefixmux.cli.output import show_json, show_table
from prefixmux.cli.progress import bar
from prefixmux.cli.push import compose, push
from prefixmux.cli.session import Connection, TaskArgument
from prefixmux.cli.show import show, versions
from prefixmux.cli.words import VersionOption
from prefixmux.client import Client
from prefixmux.stored import Task, Version

COLUMNS = ("TASK", "ACTIVE", "VERSIONS", "METHOD", "TOKENS", "SIZE", "WHERE", "UPDATED")


def build_app() -> typer.Typer:
    app = typer.Typer(help="Manage the prefixes of your tasks.", no_args_is_help=True)
    for run in (push, compose, ls, show, versions, rm, activate, pin, unpin, pull):
        app.command(run.__name__)(options.command(run))
    return app


def ls(
    connection: Connection,
    query: Annotated[str | None, typer.Option(help="Only ids that contain this.")] = None,
) -> None:
    """List the tasks."""
    with connection.opened() as client:
        tasks = list(client.prefixes.list(query=query))
    if connection.as_json:
        show_json({"items": [task.model_dump(mode="json") for task in tasks]})
    else:
        show_table(COLUMNS, map(_task_row, tasks))


def rm(
    task: TaskArgument,
    connection: Connection,
    version: Annotated[int | None, typer.Option(help="Only this version.")] = None,
) -> None:
    """Delete a task, or one of its versions that is not active."""
    with connection.opened() as client:
        client.prefixes.delete(task, version)
    if connection.as_json:
        show_json({"task_id": task, "version": version, "deleted": True})
    else:
        typer.echo(f"deleted {task}" + ("" if version is None else f" version {version}"))


def activate(
    task: TaskArgument,
    version: Annotated[int, typer.Argument(metavar="VERSION", help="The version to serve.")],
    connection: Connection,
) -> None:
    """Make a version the one that requests get when they name none."""
    with connection.opened() as client:
        found = client.prefixes.activate(task, version)
    if connection.as_json:
        show_json(found.model_dump(mode="json"))
    else:
        typer.echo(f"{found.task_id}: version {found.active_version} is active")


def pin(task: TaskArgument, connection: Connection, version: VersionOption = None) -> None:
    """Keep a version in the server's memory, also when nobody uses it."""
    with connection.opened() as client:
        _show_pinned(client.prefixes.pin(task, version), connection)


def unpin(task: TaskArgument, connection: Connection, version: VersionOption = None) -> None:
    """Let a version go when memory is short."""
    with connection.opened() as client:
        _show_pinned(client.prefixes.unpin(task, version), connection)


def pull(
    task: TaskArgument,
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="A new native file, or one to replace.")
    ],
    connection: Connection,
    version: VersionOption = None,
) -> None:
    """Download a version's native file, checked by its digest."""
    with connection.opened() as client:
        found = _pull(client, task, path, version, connection)
    if connection.as_json:
        show_json({**found.model_dump(mode="json"), "file": str(path)})
    else:
        typer.echo(f"{path}: {task} version {found.version} {found.prefix_digest}")


def _pull(
    client: Client, task: str, path: Path, version: int | None, connection: Connection
) -> Version:
    with bar(f"downloading {task}", wanted=not connection.as_json) as progress:
        return client.prefixes.download(task, path, version, progress=progress)


def _show_pinned(version: Version, connection: Connection) -> None:
    if connection.as_json:
        show_json(version.model_dump(mode="json"))
    else:
        state = "pinned" if version.pinned else "not pinned"
        typer.echo(f"{version.task_id}: version {version.version} is {state}")


def _task_row(task: Task) -> tuple[object, ...]:
    active = task.active
    shown: tuple[object, ...] = (None,) * 4
    if active is not None:
        where = f"{active.residency}, pinned" if active.pinned else active.residency
        shown = (active.method, active.prefix_tokens, size(active.bytes), where)
    return (task.task_id, task.active_version, task.versions, *shown, ago(task.updated_at))
