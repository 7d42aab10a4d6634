"""`prefixmux requests timeline`: where a finished request's time went."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from prefixmux.account import Phase, Spread, Timeline
from prefixmux.cli import options
from prefixmux.cli.human import ago, seconds
from prefixmux.cli.output import show_fields, show_json, show_table
from prefixmux.cli.session import Connection

COLUMNS = ("WHERE", "TIME", "SHARE", "STEPS", "TOKENS", "ROWS", "TASKS", "")
BAR = 24


def build_app() -> typer.Typer:
    app = typer.Typer(help="Look at finished requests.", no_args_is_help=True)
    # A group of its own, though it has one command: others will join it.
    app.callback()(lambda: None)
    app.command("timeline")(options.command(timeline))
    return app


def timeline(
    request_id: Annotated[
        str, typer.Argument(metavar="ID", help="The answer's id, or its x-request-id.")
    ],
    connection: Connection,
) -> None:
    """Show where a finished request's time went."""
    with connection.opened() as client:
        found = client.timeline(request_id)
    if connection.as_json:
        show_json(found.model_dump(mode="json"))
        return
    show_fields(_fields(found))
    typer.echo()
    show_table(COLUMNS, _rows(found))


def _fields(found: Timeline) -> Iterator[tuple[str, object]]:
    version = "" if found.version is None else f" version {found.version}"
    yield "id", found.id
    yield "request id", found.request_id
    yield "task", "(bare model)" if found.task_id is None else f"{found.task_id}{version}"
    yield "outcome", found.outcome
    yield "started", ago(found.started_at)
    yield "first token", None if found.ttft_s is None else f"after {seconds(found.ttft_s)}"
    yield "prompt", f"{found.prompt_tokens:,} tokens behind {found.prefix_tokens:,} of the prefix"
    yield "generated", f"{found.generated_tokens:,} tokens"


def _rows(found: Timeline) -> Iterator[tuple[object, ...]]:
    yield _row(found, "queue", found.queue_s)
    yield _row(found, "  prefix load", found.prefix_load_s)
    yield _row(found, "prefill", found.prefill.seconds, found.prefill)
    yield _row(found, "decode", found.decode.seconds, found.decode)
    yield _row(found, "other", found.other_s)
    yield _row(found, "total", found.total_s)


def _row(
    found: Timeline, name: str, spent: float, phase: Phase | None = None
) -> tuple[object, ...]:
    share = spent / found.total_s if found.total_s else 0.0
    told: tuple[object, ...] = ("",) * 4
    if phase is not None:
        told = (phase.steps, phase.tokens, _spread(phase.rows), _spread(phase.tasks))
    bar = "\u2588" * min(round(share * BAR), BAR)
    return name, seconds(spent), f"{share:.0%}", *told, bar


def _spread(spread: Spread) -> str | None:
    if spread.mean is None:
        return None
    return f"{spread.min}-{spread.max}, {spread.mean:.1f}"
