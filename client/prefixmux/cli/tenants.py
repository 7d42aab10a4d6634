"""`prefixmux tenants`: set, ls, show, on the store itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, TypeAlias

import typer

from prefixmux.cli.audit import AuditOption, note
from prefixmux.cli.local_store import StoreOption, opened
from prefixmux.cli.output import show_fields, show_json, show_table
from prefixmux.cli.session import JsonOption

NONE = "none"
COUNT = f"N|{NONE}"
TenantArgument: TypeAlias = Annotated[str, typer.Argument(metavar="TENANT")]


def build_app() -> typer.Typer:
    app = typer.Typer(help="Manage what a store's tenants may have and do.", no_args_is_help=True)
    app.command("set")(set_limits)
    app.command("ls")(ls)
    app.command("show")(show)
    return app


def set_limits(
    tenant: TenantArgument,
    store: StoreOption,
    max_tasks: Annotated[str | None, typer.Option(metavar=COUNT, help="Live tasks.")] = None,
    max_bytes: Annotated[
        str | None, typer.Option(metavar=COUNT, help="Of prefix files, live ones.")
    ] = None,
    max_running: Annotated[
        str | None, typer.Option(metavar=COUNT, help="Rows in the batch at once.")
    ] = None,
    max_waiting: Annotated[
        str | None, typer.Option(metavar=COUNT, help="Requests in the queue.")
    ] = None,
    tokens_per_minute: Annotated[
        str | None, typer.Option(metavar=COUNT, help="Of what is charged.")
    ] = None,
    weight: Annotated[
        str | None,
        typer.Option(metavar=COUNT, help="Share of the batch beside others; 1 unless set."),
    ] = None,
    audit_file: AuditOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set limits of a tenant; "none" takes one away, what is not named stays."""
    words = {
        "max_tasks": max_tasks,
        "max_bytes": max_bytes,
        "max_running": max_running,
        "max_waiting": max_waiting,
        "tokens_per_minute": tokens_per_minute,
        "weight": weight,
    }
    changes = {name: _value(name, word) for name, word in words.items() if word is not None}
    if not changes:
        options = ", ".join(map(_option, words))
        raise typer.BadParameter(f"Name at least one limit: {options}.")
    with opened(store, as_json=as_json, create=True) as found:
        limits = asdict(found.tenants.set(tenant, **changes))
    note(store, audit_file, "limits_set", tenant=tenant, limits=limits)
    if as_json:
        show_json({"tenant": tenant, "limits": limits})
    else:
        show_fields({"tenant": tenant, **limits}.items())


def ls(store: StoreOption, as_json: JsonOption = False) -> None:
    """List all tenants that have or had a task, a key, a limit or usage."""
    with opened(store, as_json=as_json) as found:
        items = [_about(known) for known in found.tenants.list()]
    if as_json:
        show_json({"items": items})
        return
    _show_rows([_flat(item) for item in items])


def show(tenant: TenantArgument, store: StoreOption, as_json: JsonOption = False) -> None:
    """Show a tenant's limits, what it has, and what it has used so far."""
    with opened(store, as_json=as_json) as found:
        about = _about(found.tenants.get(tenant))
        used = [_used(entry) for entry in found.usage.of(tenant)]
    if as_json:
        show_json({**about, "items": used})
        return
    show_fields(_flat(about).items())
    if used:
        typer.echo()
        _show_rows(used)


def _about(known: Any) -> dict[str, Any]:  # noqa: ANN401
    """`known` is the store's `KnownTenant`."""
    return {"tenant": known.name, **asdict(known.footprint), "limits": asdict(known.limits)}


def _used(entry: Any) -> dict[str, object]:  # noqa: ANN401
    """`entry` is the store's `UsageEntry`, of a tenant that is known."""
    return {name: value for name, value in asdict(entry).items() if name != "tenant"}


def _flat(item: dict[str, Any]) -> dict[str, object]:
    return {**{name: value for name, value in item.items() if name != "limits"}, **item["limits"]}


def _show_rows(rows: Sequence[Mapping[str, object]]) -> None:
    columns = [name.replace("_", " ").upper() for name in rows[0]] if rows else ["TENANT"]
    show_table(columns, [list(row.values()) for row in rows])


def _value(name: str, word: str) -> float | None:
    if word == NONE:
        return None
    try:
        return float(word) if name == "weight" else int(word)
    except ValueError as error:
        message = f"{word!r} is neither a number nor {NONE}."
        raise typer.BadParameter(message, param_hint=_option(name)) from error


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
