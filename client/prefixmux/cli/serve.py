"""`prefixmux serve`: hands the given flags to the server, which is imported only then.

Knows the names of the flags, not their defaults nor the environment: the server's settings do.
"""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from prefixmux.cli.extra import imported


def serve(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder, or a name on the hub.")],
    store: Annotated[str | None, typer.Option(metavar="DIR", help="Where prefixes live.")] = None,
    host: Annotated[str | None, typer.Option(help="Default 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="0 picks one. Default 8000.")] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None, typer.Option(help="auto: cuda where there is one.")
    ] = None,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"] | None,
        typer.Option(help="auto on a CPU: float32."),
    ] = None,
    layout: Annotated[
        Literal["auto", "rows", "slots"] | None,
        typer.Option(help="auto: rows on a CPU, slots on a GPU."),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Of the engine, on a CPU.")] = None,
    max_batch_rows: Annotated[int | None, typer.Option(help="Default 64.")] = None,
    max_batch_tokens: Annotated[int | None, typer.Option(help="Default 2048.")] = None,
    max_waiting: Annotated[int | None, typer.Option(help="Default 1024.")] = None,
    kv_tokens: Annotated[int | None, typer.Option(help="Room for keys and values.")] = None,
    prefix_host_bytes: Annotated[int | None, typer.Option(help="Prefixes in memory.")] = None,
    prefix_device_bytes: Annotated[int | None, typer.Option(help="Prefixes on the device.")] = None,
    max_prefix_tokens: Annotated[int | None, typer.Option(help="Default 1024.")] = None,
    max_body_bytes: Annotated[int | None, typer.Option(help="Default 1048576.")] = None,
    max_upload_bytes: Annotated[int | None, typer.Option(help="Default 1073741824.")] = None,
    max_connections: Annotated[int | None, typer.Option(help="Default 1024.")] = None,
    max_request_seconds: Annotated[
        float | None, typer.Option(help="What any request may take. Default 3600.")
    ] = None,
    hang_seconds: Annotated[
        float | None, typer.Option(help="Replace an engine silent for so long. Default 30.")
    ] = None,
    drain_seconds: Annotated[float | None, typer.Option(help="Default 30.")] = None,
    preload: Annotated[
        str | None,
        typer.Option(metavar="TASKS", help="Keep these loaded: task or tenant/task, with commas."),
    ] = None,
    metrics_open: Annotated[
        bool | None, typer.Option("--metrics-open", help="/metrics without a key, of all tenants.")
    ] = None,
    metrics_max_tasks: Annotated[
        int | None, typer.Option(help="Tasks with metrics of their own. Default 100.")
    ] = None,
    audit_file: Annotated[
        str | None,
        typer.Option(metavar="FILE|none", help="Default: audit.jsonl in the store's folder."),
    ] = None,
    audit_max_bytes: Annotated[
        int | None, typer.Option(help="Before the file is rotated. Default 67108864.")
    ] = None,
    audit_backups: Annotated[
        int | None, typer.Option(help="Rotated files that are kept. Default 10.")
    ] = None,
    allow_anonymous: Annotated[
        bool | None,
        typer.Option("--allow-anonymous", help="Bind beyond loopback without API keys."),
    ] = None,
    config: Annotated[
        str | None, typer.Option(metavar="FILE.yaml", help="Flags in a file.")
    ] = None,
) -> None:
    """Serve MODEL.

    Every flag is also PREFIXMUX_<FLAG>; flag before environment before file before default.
    """
    (server,) = imported("prefixmux_server.main", need="serving")
    given = {name: value for name, value in context.params.items() if value is not None}
    raise typer.Exit(server.main(given))
