"""`prefixmux store`: verify, gc, backup, on the store itself; servers may be running on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from prefixmux.cli.human import size
from prefixmux.cli.local_store import StoreOption, opened
from prefixmux.cli.output import show_json, show_table
from prefixmux.cli.session import REFUSED, JsonOption


def build_app() -> typer.Typer:
    app = typer.Typer(help="Look after a store on this machine.", no_args_is_help=True)
    app.command("verify")(verify)
    app.command("gc")(gc)
    app.command("backup")(backup)
    return app


def verify(store: StoreOption, as_json: JsonOption = False) -> None:
    """Hash every file that a version needs; exit 1 if one is missing or damaged."""
    with opened(store, as_json=as_json) as found:
        report = found.verify()
    _show_report(report, as_json=as_json)


def gc(
    store: StoreOption,
    grace_seconds: Annotated[
        float, typer.Option(min=0, help="Keep what is younger: requests may still need it.")
    ] = 7200,
    as_json: JsonOption = False,
) -> None:
    """Remove the files of what was deleted. A running server does this by itself."""
    with opened(store, as_json=as_json) as found:
        report = found.gc(grace_seconds)
    if as_json:
        removed = {"blobs": report.blobs, "bytes": report.bytes, "temporary": report.temporary}
        show_json(removed)
    else:
        typer.echo(f"removed {report.blobs} files, {size(report.bytes)}")


def backup(
    target: Annotated[Path, typer.Argument(metavar="DEST", help="A folder without a store.")],
    store: StoreOption,
    as_json: JsonOption = False,
) -> None:
    """Copy the store as it is now; the copy can be served. Exit 1 if a file was damaged here."""
    with opened(store, as_json=as_json) as found:
        report = found.backup(target)
    _show_report(report, as_json=as_json)


def _show_report(report: Any, *, as_json: bool) -> None:  # noqa: ANN401
    """`report` is the store's `VerifyReport`."""
    bad = [("missing", *pair) for pair in report.missing]
    bad += [("corrupt", *pair) for pair in report.corrupt]
    if as_json:
        items = [{"state": state, "tenant": t, "digest": digest} for state, t, digest in bad]
        show_json({"checked": report.checked, "ok": report.ok, "items": items})
    else:
        typer.echo(f"{report.checked} files, {len(bad) or 'none'} missing or damaged")
        if bad:
            show_table(["STATE", "TENANT", "DIGEST"], bad)
            typer.echo("Upload these prefixes again, or restore the store from a backup.")
    if not report.ok:
        raise typer.Exit(REFUSED)
