"""`prefixmux doctor`: what keeps a server from working here, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer

from prefixmux.cli.checks import machine, probe
from prefixmux.cli.checks.finding import Finding
from prefixmux.cli.checks.model import model as check_model
from prefixmux.cli.checks.server import port as check_port
from prefixmux.cli.checks.server import server as check_server
from prefixmux.cli.checks.store import store as check_store
from prefixmux.cli.output import show_findings, show_json
from prefixmux.cli.session import REFUSED, Connection

# As `serve` has it.
DEFAULT_STORE = Path("prefixmux-store")
# A look, not a wait.
SERVER_SECONDS = 5.0


def doctor(
    connection: Connection,
    model: Annotated[
        Path | None,
        typer.Argument(metavar="[MODEL]", show_default=False, help="The folder to be served."),
    ] = None,
    store: Annotated[
        Path,
        typer.Option(metavar="DIR", envvar="PREFIXMUX_STORE", help="Where prefixes live."),
    ] = DEFAULT_STORE,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="As for `serve`.")
    ] = "auto",
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"], typer.Option(help="As for `serve`.")
    ] = "auto",
    host: Annotated[str, typer.Option(help="As for `serve`.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="As for `serve`.")] = 8000,
    prove: Annotated[
        bool, typer.Option("--prove", help="Load MODEL and prove it, as `serve` would.")
    ] = False,
) -> None:
    """Look at this machine, a model, a store and a server, and say what to do; exit 1 if
    something has to be done."""
    if prove and model is None:
        raise typer.BadParameter("--prove is of a MODEL.")
    asked = probe.Question(None if model is None else str(model), device, dtype, prove)
    found: list[Finding] = []
    for finding in _findings(connection, asked, store, host, port):
        found.append(finding)
        if not connection.as_json:
            show_findings([finding])
    healthy = all(finding.state != "fail" for finding in found)
    if connection.as_json:
        show_json({"ok": healthy, "findings": [finding.body() for finding in found]})
    if not healthy:
        raise typer.Exit(REFUSED)


def _findings(
    connection: Connection, asked: probe.Question, store: Path, host: str, port: int
) -> Iterator[Finding]:
    yield from machine.python()
    yield from machine.packages()
    answer = probe.look(asked)
    yield from machine.device(answer, asked.device, asked.dtype)
    yield from machine.memory()
    if asked.model is not None:
        yield from check_model(Path(asked.model), answer)
    yield from check_store(store)
    with connection.opened() as client:
        short = client.with_options(timeout=SERVER_SECONDS, max_retries=0)
        yield from check_server(
            short,
            client.base_url,
            asked=connection.server is not None,
            has_key=client.has_key,
        )
    yield from check_port(host, port)
