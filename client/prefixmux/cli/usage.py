"""`prefixmux usage`: what the key's tenant stores, has used, and may."""

from __future__ import annotations

from collections.abc import Iterator

import typer

from prefixmux.account import TaskUsage, UsageReport
from prefixmux.cli.human import size
from prefixmux.cli.output import show_fields, show_json, show_table
from prefixmux.cli.session import Connection

COLUMNS = ("TASK", "REQUESTS", "PROMPT TOKENS", "PREFIX TOKENS", "GENERATED TOKENS")


def usage(connection: Connection) -> None:
    """Show what your tenant stores, has used, and may use."""
    with connection.opened() as client:
        found = client.usage()
    if connection.as_json:
        show_json(found.model_dump(mode="json"))
        return
    show_fields(_fields(found))
    typer.echo()
    show_table(COLUMNS, map(_row, found.items))


def _fields(report: UsageReport) -> Iterator[tuple[str, object]]:
    limits = report.limits.model_dump()
    yield "tenant", report.tenant
    yield "tasks", _of(f"{report.tasks:,}", limits.pop("max_tasks"))
    yield "versions", f"{report.versions:,}"
    maximum = limits.pop("max_bytes")
    yield "bytes", _of(size(report.bytes), None if maximum is None else size(maximum))
    for name, limit in limits.items():
        yield name.replace("_", " "), "no limit" if limit is None else limit


def _of(used: str, limit: object) -> str:
    return used if limit is None else f"{used} of {limit}"


def _row(usage: TaskUsage) -> tuple[object, ...]:
    counts = (usage.requests, usage.prompt_tokens, usage.prefix_tokens, usage.generated_tokens)
    name = "(bare model)" if usage.task_id is None else usage.task_id
    return name, *(f"{count:,}" for count in counts)
