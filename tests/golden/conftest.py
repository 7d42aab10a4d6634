"""The reference data, and what it is run on."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.golden import Golden
from support.models import devices
from support.original import Original
from support.tiny import LAYOUTS

from prefixmux_server.memory.select import LayoutName


@pytest.fixture(scope="session")
def golden(shared: Path) -> Golden:
    return Golden(shared / "golden")


@pytest.fixture(scope="session")
def original(shared: Path) -> Original:
    return Original(shared / "golden_original")


@pytest.fixture(scope="module", params=devices())
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=LAYOUTS)
def layout(device: str, request: pytest.FixtureRequest) -> LayoutName:
    name: LayoutName = request.param
    if name == "rows" and device != "cpu":
        pytest.skip("the row layout is for CPUs only")
    return name
