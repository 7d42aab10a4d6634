"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("torch", "transformers", "peft", "prefixmux")
_CPU_FEATURES = ("avx512f", "avx512_bf16", "amx_bf16")


def describe(threads: int) -> Mapping[str, str]:
    """Facts for the head of a report; nothing that names a host or a user."""
    facts = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "CPU": f"{cpu_name()}, {os.cpu_count()} cores, {threads} threads used",
        "CPU features": " ".join(name for name in _CPU_FEATURES if name in _cpuinfo("flags")),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "Python": platform.python_version(),
    }
    return facts | {package: version(package) for package in _PACKAGES}


def cpu_name() -> str:
    family = _cpuinfo("cpu family")
    return " ".join([_cpuinfo("model name") or platform.machine(), f"(family {family})"])


def file_name() -> str:
    """`<date>-<machine>`, for result files."""
    machine = re.sub(r"[^a-z0-9]+", "-", cpu_name().lower()).strip("-")
    return f"{datetime.now(UTC):%Y-%m-%d}-{machine}"


def _cpuinfo(key: str) -> str:
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    found = re.search(rf"^{key}\s*:\s*(.*)$", text, re.MULTILINE)
    return found.group(1) if found else ""
