"""`prefixmux keys`: create, ls, revoke, on the store itself.

A server that runs on it honours each change at its next request.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from prefixmux.cli.audit import AuditOption, note
from prefixmux.cli.local_store import StoreOption, opened
from prefixmux.cli.output import show_json, show_table
from prefixmux.cli.session import JsonOption


class Scope(StrEnum):
    GENERATE = "generate"
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


def build_app() -> typer.Typer:
    app = typer.Typer(help="Manage the API keys of a store's tenants.", no_args_is_help=True)
    app.command("create")(create)
    app.command("ls")(ls)
    app.command("revoke")(revoke)
    return app


def create(
    store: StoreOption,
    tenant: Annotated[str, typer.Option(metavar="T", help="Whose tasks the key is for.")],
    scope: Annotated[
        list[Scope],
        typer.Option(
            metavar="|".join(Scope),
            help="What it may do; repeatable. admin: everything, of its own tenant.",
        ),
    ],
    description: Annotated[
        str | None, typer.Option(help="Who or what will use it, for `keys ls`.")
    ] = None,
    audit_file: AuditOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it, this once: the store keeps only its hash.

    From the first key on, the store's servers ask everyone for a key, for ever.
    """
    with opened(store, as_json=as_json, create=True) as found:
        first = not found.keys.required()
        made = found.keys.create(tenant, [word.value for word in scope], description)
    _note(store, audit_file, "key_created", made.record)
    if as_json:
        show_json({"key": made.key, **_fields(made.record)})
        return
    typer.echo(made.key)
    typer.echo(f"{made.record.id}: keep the key, it is not shown again.", err=True)
    if first:
        typer.echo("From now on this store asks everyone for a key.", err=True)


def ls(
    store: StoreOption,
    tenant: Annotated[str | None, typer.Option(metavar="T", help="Only of this tenant.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the keys, revoked ones too; not the keys themselves, which nobody knows."""
    with opened(store, as_json=as_json) as found:
        keys = found.keys.list(tenant)
    if as_json:
        show_json({"items": [_fields(key) for key in keys]})
    else:
        columns = ["ID", "TENANT", "SCOPES", "CREATED", "REVOKED", "DESCRIPTION"]
        show_table(columns, map(_row, keys))


def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `keys ls` shows it.")],
    store: StoreOption,
    audit_file: AuditOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a key back for good."""
    with opened(store, as_json=as_json) as found:
        key = found.keys.revoke(key_id)
    _note(store, audit_file, "key_revoked", key)
    if as_json:
        show_json(_fields(key))
    else:
        typer.echo(f"revoked {key.id} of {key.tenant}")


def _note(store: Path, audit_file: str | None, event: str, key: Any) -> None:  # noqa: ANN401
    """Without the description, which is anybody's text."""
    scopes = sorted(key.scopes)
    note(store, audit_file, event, tenant=key.tenant, key_id=key.id, scopes=scopes)


def _fields(key: Any) -> dict[str, object]:  # noqa: ANN401
    """`key` is the store's `Key`."""
    return {
        "id": key.id,
        "tenant": key.tenant,
        "scopes": sorted(key.scopes),
        "description": key.description,
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
    }


def _row(key: Any) -> tuple[object, ...]:  # noqa: ANN401
    revoked = None if key.revoked_at is None else _when(key.revoked_at)
    scopes = " ".join(sorted(key.scopes))
    return key.id, key.tenant, scopes, _when(key.created_at), revoked, key.description


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(" ", "seconds")
