"""`prefixmux convert`: files of other programs to native ones and back, on this machine alone.

The converters come with the server's part of the package, which is imported only then.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from prefixmux.cli.extra import imported
from prefixmux.cli.output import show_json, show_table
from prefixmux.cli.session import REFUSED, JsonOption


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            exists=True,
            help="A native file, or the folder of a PEFT or AdapterHub adapter or of a checkpoint"
            " of the paper's code.",
        ),
    ],
    target: Annotated[
        Path, typer.Argument(metavar="DEST", help="A new file; with --to peft a folder.")
    ],
    kind: Annotated[
        Literal["auto", "peft", "li-liang", "adapterhub", "native"],
        typer.Option("--from", help="auto: told by the files."),
    ] = "auto",
    to: Annotated[Literal["native", "peft"], typer.Option(help="What to write.")] = "native",
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            exists=True,
            file_okay=False,
            help="The model that the prefix is for; some conversions need its config.json.",
        ),
    ] = None,
    task_index: Annotated[
        int | None, typer.Option(help="Which task of a MULTITASK_PROMPT_TUNING file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Convert a prefix; reads PyTorch's files without running what is in them."""
    names = ("prefixmux_store.convert.folders", "prefixmux_store.errors")
    folders, errors = imported(*names, need="converting")
    try:
        made = folders.convert(
            source,
            target,
            None if kind == "auto" else kind,
            peft=to == "peft",
            model=model,
            task_index=task_index,
        )
    except (errors.StoreError, OSError) as error:
        _show_refusal(error, as_json=as_json)
        raise typer.Exit(REFUSED) from error
    _show(made, as_json=as_json)


def _show(made: Any, *, as_json: bool) -> None:  # noqa: ANN401
    """`made` is the store's `Converted`."""
    said: dict[str, object] = {
        "from": made.kind,
        "method": made.file.meta.method,
        "sites": made.file.sites,
        "tokens": made.file.tokens,
        "bytes": sum(path.stat().st_size for path in made.written),
        "digest": made.file.digest,
        "files": [str(path) for path in made.written],
    }
    if as_json:
        show_json(said)
        return
    rows = {
        **said,
        "sites": ", ".join(f"{site} {tokens}" for site, tokens in made.file.sites.items()),
        "files": ", ".join(str(path) for path in made.written),
    }
    show_table(["PREFIX", ""], rows.items())


def _show_refusal(error: Exception, *, as_json: bool) -> None:
    """On stderr. Parameters of the store are options of this command."""
    options = {"model": "--model", "task_index": "--task-index", "source": "SOURCE"}
    param = options.get(str(getattr(error, "param", None)))
    if as_json:
        body = {
            "code": getattr(error, "code", None),
            "message": str(error),
            "param": param,
            "reason": getattr(error, "reason", None),
        }
        typer.echo(json.dumps({"error": body}, ensure_ascii=False), err=True)
    else:
        typer.echo(f"error: {error}" + (f" ({param})" if param else ""), err=True)
