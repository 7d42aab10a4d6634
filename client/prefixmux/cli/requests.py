"""`prefixmux requests timeline`: where a finished request's time went."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

import typer

from prefixmux.cli import options
from prefixmux.cli.output import show_fields, show_json
from prefixmux.cli.session import Connection


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
        found = client.timeline(request_id).model_dump(mode="json")
    if connection.as_json:
        show_json(found)
    else:
        show_fields(_flat(found))


def _flat(fields: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    for name, value in fields.items():
        label = f"{above}{name}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{label} ")
        else:
            yield label, value
