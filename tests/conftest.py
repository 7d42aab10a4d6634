"""Fixtures of the whole suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Tiny models on a busy machine: threads that wait for each other cost more than they give.
# Set before torch is imported, and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference data that is not part of the repository: golden files and small real models."""
    default = Path(__file__).resolve().parent.parent.parent / "shared"
    folder = Path(os.environ.get("PREFIXMUX_SHARED", default))
    if not (folder / "golden" / "golden.json").is_file():
        pytest.skip("no reference data beside the repository (set PREFIXMUX_SHARED)")
    return folder
