"""Each family once, for all tests of this folder."""

from __future__ import annotations

import pytest
from contract.families import FAMILIES
from contract.ward import Ward, make_ward
from support.tiny import LAYOUTS

from prefixmux_server.memory.select import LayoutName


@pytest.fixture(scope="session", params=list(FAMILIES))
def ward(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ward:
    return make_ward(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> LayoutName:
    name: LayoutName = request.param
    return name
