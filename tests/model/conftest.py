"""Saved tiny models, one of each kind for all tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from model.configs import EVERY
from support.models import save_tiny

Saved = Callable[[str], Path]


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """The folder of a model of `configs.EVERY`, by name."""
    folders: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in folders:
            made = tmp_path_factory.mktemp(name.replace(" ", "-"))
            # T5 does not scale its scores: larger weights would only make rounding loud.
            folders[name] = save_tiny(EVERY[name](), made, scale=2.0 if "t5" in name else 4.0)
        return folders[name]

    return folder
