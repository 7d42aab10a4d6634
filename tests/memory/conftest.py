"""Both layouts."""

from __future__ import annotations

import pytest
from support.tiny import LAYOUTS

from prefixmux_server.memory.select import LayoutName


@pytest.fixture(params=LAYOUTS)
def name(request: pytest.FixtureRequest) -> LayoutName:
    chosen: LayoutName = request.param
    return chosen
