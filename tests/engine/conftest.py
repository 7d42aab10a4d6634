"""A tiny model for all tests of the engine, on both layouts."""

from __future__ import annotations

import pytest
from support.models import FAMILIES, load_folder, save_tiny
from support.reference import load_reference
from support.tiny import LAYOUTS, Tiny

from prefixmux_server.memory.select import LayoutName


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Grouped query heads, rotary positions: what most models have."""
    folder = save_tiny(FAMILIES["llama"](), tmp_path_factory.mktemp("llama"))
    return Tiny(load_folder(folder), load_reference(folder))


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> LayoutName:
    name: LayoutName = request.param
    return name
