"""A store's folder: whether it opens, is whole, is private, and has room."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from prefixmux.cli.checks.finding import Finding
from prefixmux.cli.human import size

LITTLE_ROOM = 1 << 30
NO_ROOM = 64 << 20


def store(folder: Path) -> Iterator[Finding]:
    if not folder.exists():
        yield _absent(folder)
    else:
        yield from _opened(folder)
        yield _permissions(folder)
    yield from _room(folder)


def _absent(folder: Path) -> Finding:
    parent = _existing(folder)
    if os.access(parent, os.W_OK | os.X_OK):
        return Finding("store", "ok", f"{folder} is not there yet; `serve` makes it")
    advice = "Let the user that serves write there, or take another --store."
    return Finding("store", "fail", f"{folder} cannot be made in {parent}", advice)


def _opened(folder: Path) -> Iterator[Finding]:
    try:
        stores = import_module("prefixmux_store.store")
        errors = import_module("prefixmux_store.errors")
    except ModuleNotFoundError as error:
        advice = "pip install 'prefixmux[server]'."
        yield Finding("store", "fail", f"{error.name} is not installed", advice)
        return
    try:
        with stores.PrefixStore.open(folder) as found:
            yield Finding("store", "ok", f"{folder} opens")
            report = found.verify()
    except errors.StoreError as error:
        yield Finding("store", "fail", error.message, "See that its folder is whole and yours.")
        return
    if report.ok:
        yield Finding("files", "ok", f"{report.checked:,} files, none damaged")
    else:
        bad = len(report.missing) + len(report.corrupt)
        advice = "`prefixmux store verify` names them; upload them again, or take a backup."
        yield Finding("files", "fail", f"{bad:,} of {report.checked:,} missing or damaged", advice)


def _permissions(folder: Path) -> Finding:
    mode = folder.stat().st_mode
    advice = f"chmod 700 {folder}"
    if mode & stat.S_IWOTH:
        return Finding("permissions", "fail", "everyone may change the store", advice)
    if mode & stat.S_IROTH:
        return Finding("permissions", "warn", "everyone may read the tenants' prefixes", advice)
    return Finding("permissions", "ok", f"{stat.S_IMODE(mode):o}")


def _room(folder: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(_existing(folder)).free
    advice = "Free some: uploads are refused with 507 when the disk is full."
    if free < NO_ROOM:
        yield Finding("room", "fail", f"{size(free)} free", advice)
    elif free < LITTLE_ROOM:
        yield Finding("room", "warn", f"{size(free)} free", advice)
    else:
        yield Finding("room", "ok", f"{size(free)} free")


def _existing(folder: Path) -> Path:
    """It, or the nearest folder above it that is there."""
    path = folder.absolute()
    while not path.exists():
        path = path.parent
    return path
