"""A tiny model for all tests of the engine, on both layouts."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.models import FAMILIES, load_folder, save_tiny
from support.reference import load_reference
from support.tiny import LAYOUTS, Tiny

from prefixmux_server.memory.select import LayoutName


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grouped query heads, rotary positions: what most models have."""
    return save_tiny(FAMILIES["llama"](), tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def tiny(llama: Path) -> Tiny:
    return Tiny(load_folder(llama), load_reference(llama))


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> LayoutName:
    name: LayoutName = request.param
    return name
