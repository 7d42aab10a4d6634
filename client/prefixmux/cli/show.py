"""`prefixmux prefixes show` and `versions`: a task, its versions, and one of them in full."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated

import typer

from prefixmux.cli.human import ago, size
from prefixmux.cli.output import show_fields, show_json, show_table
from prefixmux.cli.session import Connection, TaskArgument
from prefixmux.stored import Task, Version

COLUMNS = ("VERSION", "METHOD", "TOKENS", "SIZE", "CREATED", "WHERE", "DIGEST", "DESCRIPTION")


def show(
    task: TaskArgument,
    connection: Connection,
    version: Annotated[
        int | None, typer.Option(help="Which to show in full. Default: the active one.")
    ] = None,
) -> None:
    """Show a task, its versions, and one of them in full."""
    with connection.opened() as client:
        found = client.prefixes.get(task)
        chosen = found.active if version is None else client.prefixes.get_version(task, version)
        versions = list(client.prefixes.versions(task))
    if connection.as_json:
        items = [each.model_dump(mode="json") for each in versions]
        show_json({"task": found.model_dump(mode="json"), "versions": items})
    else:
        _show(found, versions, chosen)


def versions(task: TaskArgument, connection: Connection) -> None:
    """List the versions of a task, the oldest first."""
    with connection.opened() as client:
        found = list(client.prefixes.versions(task))
    if connection.as_json:
        show_json({"items": [each.model_dump(mode="json") for each in found]})
    else:
        show_table(COLUMNS, map(_row, found))


def _show(task: Task, versions: list[Version], chosen: Version | None) -> None:
    typer.echo(f"{task.task_id}: version {task.active_version or '-'} is active")
    show_table(COLUMNS, map(_row, versions))
    if chosen is not None:
        typer.echo(f"\nversion {chosen.version}")
        show_fields(_fields(chosen))


def _row(version: Version) -> tuple[object, ...]:
    return (
        version.version,
        version.method,
        version.prefix_tokens,
        size(version.bytes),
        ago(version.created_at),
        _where(version),
        version.prefix_digest,
        version.description,
    )


def _fields(version: Version) -> Iterator[tuple[str, object]]:
    yield "method", version.method
    yield "tokens", f"{version.prefix_tokens} ({_sites(version.sites)})"
    yield "bytes", f"{version.bytes:,}"
    yield "where", _where(version)
    yield "base model", version.base_model
    yield "base fingerprint", version.base_fingerprint
    yield "digest", version.prefix_digest
    if len(version.parts) > 1:
        for number, part in enumerate(version.parts, 1):
            name = f"{part.task_id}@{part.version}"
            yield f"part {number}", f"{name}  {part.method}  {part.tokens} tokens  {part.digest}"
    # As it would be written: its newlines are part of it.
    yield "template", None if version.template is None else repr(version.template)
    yield "defaults", ", ".join(f"{k}={v!r}" for k, v in version.parameters.items()) or None
    yield "description", version.description
    yield "created", _time(version.created_at)


def _where(version: Version) -> str | None:
    return f"{version.residency}, pinned" if version.pinned else version.residency


def _sites(sites: Mapping[str, int]) -> str:
    return ", ".join(f"{site} {tokens}" for site, tokens in sites.items())


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(" ", "seconds")
