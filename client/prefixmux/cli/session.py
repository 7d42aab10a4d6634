"""What every client command shares: the options that name a server, and what failures become."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, TypeAlias

import typer

from prefixmux.cli.output import show_error
from prefixmux.client import Client
from prefixmux.errors import APIConnectionError, InvalidArgumentError, PrefixmuxError

REFUSED = 1
USAGE = 2
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


@dataclass(frozen=True)
class Connection:
    """The options of a command that asks a server."""

    server: ServerOption = None
    api_key: KeyOption = None
    as_json: JsonOption = False

    @contextmanager
    def opened(self) -> Iterator[Client]:
        """A client; expected failures inside are shown on stderr and end the program."""
        try:
            client = Client(self.server, self.api_key)
        except InvalidArgumentError as error:
            raise typer.BadParameter(str(error)) from error
        with client, self._failures():
            yield client

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            # Whoever read stdout has had enough; there is nobody to tell.
            raise
        except APIConnectionError as error:
            show_error(error, as_json=self.as_json)
            raise typer.Exit(UNREACHABLE) from error
        except (PrefixmuxError, OSError) as error:
            show_error(error, as_json=self.as_json)
            raise typer.Exit(REFUSED) from error
