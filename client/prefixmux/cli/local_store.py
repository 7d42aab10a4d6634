"""What the operator's commands share: the store on this machine, and what its refusals become.

The store comes with the server's part of the package, which is imported only then.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from prefixmux.cli.extra import imported
from prefixmux.cli.session import REFUSED

StoreOption: TypeAlias = Annotated[
    Path,
    typer.Option(
        "--store",
        metavar="DIR",
        envvar="PREFIXMUX_STORE",
        help="The folder that `prefixmux serve` is given; a server may be running on it.",
    ),
]

MODULES = ("prefixmux_store.store", "prefixmux_store.opening", "prefixmux_store.errors")


@contextmanager
def opened(folder: Path, *, as_json: bool, create: bool = False) -> Iterator[Any]:
    """The `PrefixStore`; without `create` there has to be one. Refusals inside are shown on
    stderr and end the program."""
    store, opening, errors = imported(*MODULES, need="work on a store")
    if not create and not (folder / opening.CATALOGUE_NAME).is_file():
        message = f"There is no store in {folder}; `prefixmux serve` makes one."
        _show_refusal("not_found", message, "store", as_json=as_json)
        raise typer.Exit(REFUSED)
    try:
        with store.PrefixStore.open(folder) as found:
            yield found
    except errors.StoreError as error:
        _show_refusal(error.code, error.message, error.param, as_json=as_json)
        raise typer.Exit(REFUSED) from error


def _show_refusal(code: str, message: str, param: str | None, *, as_json: bool) -> None:
    """On stderr. Parameters of the store are named like the options of these commands."""
    if as_json:
        body = {"code": code, "message": message, "param": param}
        typer.echo(json.dumps({"error": body}, ensure_ascii=False), err=True)
    else:
        typer.echo(f"error: {message}", err=True)
