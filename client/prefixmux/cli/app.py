"""Puts the commands together. Usage errors exit 2, refusals 1, an unreachable server 3."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from prefixmux.cli import (
    convert,
    doctor,
    generate,
    keys,
    options,
    prefixes,
    requests,
    score,
    serve,
    status,
    store,
    tenants,
    usage,
)


def build_app() -> typer.Typer:
    app = typer.Typer(
        name="prefixmux",
        help="Serve one frozen language model with a different tuned prefix in every row.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    app.command("serve")(serve.serve)
    for run in (
        generate.generate,
        score.score,
        usage.usage,
        status.status,
        status.health,
        doctor.doctor,
    ):
        app.command(run.__name__)(options.command(run))
    app.command("convert")(convert.convert)
    app.add_typer(prefixes.build_app(), name="prefixes")
    app.add_typer(requests.build_app(), name="requests")
    app.add_typer(store.build_app(), name="store")
    app.add_typer(keys.build_app(), name="keys")
    app.add_typer(tenants.build_app(), name="tenants")
    return app


def main() -> None:
    build_app()(prog_name="prefixmux")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("prefixmux"))
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Options of the program itself."""
