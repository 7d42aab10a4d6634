"""What operators change on a store itself: a line each in the audit file of its servers.

The file's form is the server's part of the package, which is imported only then.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

NONE = "none"
AuditOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar=f"FILE|{NONE}",
        envvar="PREFIXMUX_AUDIT_FILE",
        help="As `prefixmux serve` is given it. Default: audit.jsonl in the store's folder.",
    ),
]


def note(store: Path, audit_file: str | None, event: str, **fields: object) -> None:
    """`uid` is who ran the command. What cannot be written is told, and undoes nothing."""
    if audit_file == NONE:
        return
    path = store / "audit.jsonl" if audit_file is None else Path(audit_file)
    try:
        audit = import_module("prefixmux_server.service.tenants.audit")
        audit.append(path, event, {**fields, "uid": os.getuid()})
    except (ModuleNotFoundError, OSError) as error:
        typer.echo(f"warning: this is not in the audit file {path}: {error}", err=True)
