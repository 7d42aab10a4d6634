"""`prefixmux prefixes`: push, ls, show, rm, activate."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from prefixmux.cli.output import show_json, show_table
from prefixmux.cli.session import JsonOption, KeyOption, ServerOption, TaskArgument, connected
from prefixmux.types import Task, Version


def build_app() -> typer.Typer:
    app = typer.Typer(help="Manage the prefixes of your tasks.", no_args_is_help=True)
    app.command("push")(push)
    app.command("ls")(ls)
    app.command("show")(show)
    app.command("rm")(rm)
    app.command("activate")(activate)
    return app


def push(
    task: TaskArgument,
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            exists=True,
            help="A native .safetensors file or a PEFT adapter's folder.",
        ),
    ],
    use: Annotated[
        bool, typer.Option("--activate/--no-activate", help="Serve it from now on.")
    ] = True,
    description: Annotated[str | None, typer.Option(help="A note kept with the version.")] = None,
    server: ServerOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Upload a prefix as a new version of a task."""
    with connected(server, api_key, as_json=as_json) as client:
        version = client.prefixes.upload(task, path, activate=use, description=description)
    if as_json:
        show_json(version.model_dump(mode="json"))
    else:
        typer.echo(f"{version.task_id} version {version.version} {version.prefix_digest}")


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


def show(
    task: TaskArgument,
    server: ServerOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a task and its versions."""
    with connected(server, api_key, as_json=as_json) as client:
        found = client.prefixes.get(task)
        versions = list(client.prefixes.versions(task))
    if as_json:
        items = [version.model_dump(mode="json") for version in versions]
        show_json({"task": found.model_dump(mode="json"), "versions": items})
        return
    typer.echo(f"{found.task_id}: version {found.active_version or '-'} is active")
    columns = ["VERSION", "METHOD", "TOKENS", "BYTES", "CREATED", "WHERE", "DIGEST", "DESCRIPTION"]
    show_table(columns, map(_version_row, versions))


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


def _version_row(version: Version) -> tuple[object, ...]:
    created = datetime.fromtimestamp(version.created_at, UTC).isoformat(" ", "seconds")
    return (
        version.version,
        version.method,
        version.prefix_tokens,
        version.bytes,
        created,
        version.residency,
        version.prefix_digest,
        version.description,
    )
