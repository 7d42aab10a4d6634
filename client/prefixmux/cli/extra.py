"""The parts of the package that not everybody installs, imported by the commands that need them."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import typer

from prefixmux.cli.session import USAGE


def imported(*names: str, need: str) -> tuple[ModuleType, ...]:
    """Ends the program where one is missing, saying how to install it; `need` says what for."""
    try:
        return tuple(import_module(name) for name in names)
    except ModuleNotFoundError as error:
        typer.echo(
            f"error: {error.name} is not installed, which {need} needs:"
            " pip install 'prefixmux[server]'",
            err=True,
        )
        raise typer.Exit(USAGE) from error
