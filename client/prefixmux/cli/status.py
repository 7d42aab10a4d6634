"""`prefixmux status` and `health`: what serves there, and whether it takes requests."""

from __future__ import annotations

from collections.abc import Iterator

import typer

from prefixmux.about import Health, ModelInfo, ServerVersion
from prefixmux.cli.output import show_fields, show_json
from prefixmux.cli.session import REFUSED, Connection


def health(connection: Connection) -> None:
    """Whether the server takes requests: exit 0 if it does, 1 if not."""
    with connection.opened() as client:
        found = client.health()
    if connection.as_json:
        show_json(found.model_dump(mode="json"))
    else:
        typer.echo(_health(found))
    if not found.ready:
        raise typer.Exit(REFUSED)


def status(connection: Connection) -> None:
    """Show what serves there: its version, its model, and whether it takes requests."""
    with connection.opened() as client:
        found = client.health()
        version = client.version()
        model = client.model() if found.ready else None
    if connection.as_json:
        shown = {
            "health": found.model_dump(mode="json"),
            "version": version.model_dump(mode="json"),
            "model": None if model is None else model.model_dump(mode="json"),
        }
        show_json(shown)
    else:
        show_fields(_fields(found, version, model))
    if not found.ready:
        raise typer.Exit(REFUSED)


def _health(health: Health) -> str:
    return health.status if health.reason is None else f"{health.status}: {health.reason}"


def _fields(
    health: Health, version: ServerVersion, model: ModelInfo | None
) -> Iterator[tuple[str, object]]:
    yield "status", _health(health)
    yield "version", version.version
    if model is None:
        return
    yield "model", f"{model.id} ({model.family}, {model.layers} layers)"
    yield "runs on", f"{model.device}, {model.dtype}"
    yield "context", "no limit" if model.context is None else f"{model.context:,} tokens"
    yield "methods", ", ".join(model.methods)
    sites = (
        f"{name} [{s.layers}, 2, P, {s.kv_heads}, {s.k_dim}]" for name, s in model.sites.items()
    )
    yield "prefixes are", ", ".join(sites)
