"""Fixtures of the whole suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference data that is not part of the repository: golden files and small real models."""
    default = Path(__file__).resolve().parent.parent.parent / "shared"
    folder = Path(os.environ.get("PREFIXMUX_SHARED", default))
    if not (folder / "golden" / "golden.json").is_file():
        pytest.skip("no reference data beside the repository (set PREFIXMUX_SHARED)")
    return folder
