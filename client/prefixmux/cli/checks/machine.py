"""Python, the packages of the server, the device, and the memory."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

from prefixmux.cli.checks.finding import Finding
from prefixmux.cli.human import size

OLDEST_PYTHON = (3, 11)
SHOWN = ("torch", "transformers", "safetensors", "fastapi", "uvicorn")
INSTALL = "pip install 'prefixmux[server]'"
LITTLE_MEMORY = 1 << 30


def python() -> Iterator[Finding]:
    found = platform.python_version()
    if sys.version_info < OLDEST_PYTHON:
        yield Finding("python", "fail", found, "Take Python 3.11 or newer.")
    else:
        yield Finding("python", "ok", f"{found}, {platform.system()} {platform.machine()}")


def packages() -> Iterator[Finding]:
    """Those whose versions matter most, against what this package asks for."""
    yield Finding("prefixmux", "ok", version("prefixmux"))
    asked = _asked()
    for name in SHOWN:
        yield _package(name, asked.get(name))


def _package(name: str, specifier: Any) -> Finding:  # noqa: ANN401
    try:
        found = version(name)
    except PackageNotFoundError:
        return Finding(name, "fail", "not installed", f"To serve, {INSTALL}.")
    if specifier is None or specifier.contains(found, prereleases=True):
        return Finding(name, "ok", found)
    return Finding(name, "fail", f"{found}, but {specifier} is asked for", f"{INSTALL}.")


def _asked() -> Mapping[str, Any]:
    """Specifiers by name; nothing where there is nobody to read them."""
    try:
        parse = import_module("packaging.requirements").Requirement
    except ModuleNotFoundError:
        return {}
    found = [parse(line) for line in requires("prefixmux") or ()]
    return {requirement.name: requirement.specifier for requirement in found}


def device(answer: Mapping[str, Any], asked: str, dtype: str) -> Iterator[Finding]:
    """Of what `probe.look` answered."""
    found = answer["device"]
    if "error" in found:
        yield Finding("device", "fail", found["error"], f"{INSTALL}, or repair the driver.")
    elif found["type"] == "cpu":
        yield _cpu(found, asked, dtype)
    else:
        yield from _cuda(found, dtype)


def _cuda(found: Mapping[str, Any], dtype: str) -> Iterator[Finding]:
    memory = f"{size(found['free'])} of {size(found['total'])} free"
    yield Finding("device", "ok", f"cuda, {found['name']}, {memory}")
    if dtype == "bfloat16" and not found["bfloat16"]:
        yield Finding("dtype", "fail", "this GPU has no bfloat16", "Take --dtype float16.")


def _cpu(found: Mapping[str, Any], asked: str, dtype: str) -> Finding:
    shown = f"cpu, {found['threads']} threads"
    if asked == "cuda":
        advice = "Install a CUDA build of torch and the driver, or take --device cpu."
        return Finding("device", "fail", "there is no CUDA device", advice)
    if dtype == "float16":
        return Finding("device", "warn", f"{shown}, float16", "On CPUs float32 is exact.")
    return Finding("device", "ok", shown)


def memory() -> Iterator[Finding]:
    free = available_memory()
    if free is None:
        return
    if free < LITTLE_MEMORY:
        advice = "End other programs, or serve a smaller model."
        yield Finding("memory", "warn", f"{size(free)} available", advice)
    else:
        yield Finding("memory", "ok", f"{size(free)} available")


def available_memory() -> int | None:
    """Bytes; None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:  # noqa: PTH123 - no regular file
            fields = dict(line.split(":", 1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
