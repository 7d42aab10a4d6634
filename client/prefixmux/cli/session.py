"""What every client command shares: the options that name a server, and what failures become."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, TypeAlias

import typer

from prefixmux.cli.output import show_error
from prefixmux.client import Client
from prefixmux.errors import APIConnectionError, InvalidArgumentError, PrefixmuxError

REFUSED = 1
UNREACHABLE = 3

ServerOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        envvar="PREFIXMUX_BASE_URL",
        help="Where the server is (default http://127.0.0.1:8000).",
    ),
]
KeyOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        metavar="KEY",
        envvar="PREFIXMUX_API_KEY",
        help="Prefer the variable: arguments are seen by every user of this machine.",
    ),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TaskArgument: TypeAlias = Annotated[str, typer.Argument(metavar="TASK", help="The task's id.")]


@contextmanager
def connected(server: str | None, api_key: str | None, *, as_json: bool) -> Iterator[Client]:
    """A client; expected failures inside are shown on stderr and end the program."""
    try:
        client = Client(server, api_key)
    except InvalidArgumentError as error:
        raise typer.BadParameter(str(error)) from error
    with client:
        try:
            yield client
        except APIConnectionError as error:
            show_error(error, as_json=as_json)
            raise typer.Exit(UNREACHABLE) from error
        except (PrefixmuxError, OSError) as error:
            show_error(error, as_json=as_json)
            raise typer.Exit(REFUSED) from error
