"""`prefixmux prefixes show`: a task, its versions, and one of them in full."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated

import typer

from prefixmux.cli.output import show_fields, show_json, show_table
from prefixmux.cli.session import JsonOption, KeyOption, ServerOption, TaskArgument, connected
from prefixmux.stored import Task, Version

COLUMNS = ("VERSION", "METHOD", "TOKENS", "BYTES", "CREATED", "WHERE", "DIGEST", "DESCRIPTION")


def show(
    task: TaskArgument,
    version: Annotated[
        int | None, typer.Option(help="Which to show in full. Default: the active one.")
    ] = None,
    server: ServerOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a task, its versions, and one of them in full."""
    with connected(server, api_key, as_json=as_json) as client:
        found = client.prefixes.get(task)
        chosen = found.active if version is None else client.prefixes.get_version(task, version)
        versions = list(client.prefixes.versions(task))
    if as_json:
        items = [each.model_dump(mode="json") for each in versions]
        show_json({"task": found.model_dump(mode="json"), "versions": items})
    else:
        _show(found, versions, chosen)


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
        version.bytes,
        _time(version.created_at),
        version.residency,
        version.prefix_digest,
        version.description,
    )


def _fields(version: Version) -> Iterator[tuple[str, object]]:
    yield "method", version.method
    yield "tokens", f"{version.prefix_tokens} ({_sites(version.sites)})"
    yield "bytes", f"{version.bytes:,}"
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


def _sites(sites: Mapping[str, int]) -> str:
    return ", ".join(f"{site} {tokens}" for site, tokens in sites.items())


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(" ", "seconds")
