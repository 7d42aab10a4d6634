"""What the tests of both clients share."""

from __future__ import annotations

import pytest
from client.scripted import AwaitedServer, ScriptedServer


@pytest.fixture(params=[ScriptedServer, AwaitedServer], ids=["blocking", "awaited"])
def scripted(request: pytest.FixtureRequest) -> type[ScriptedServer]:
    """Makes a server whose `client()` is the blocking client, then one with the awaited."""
    found: type[ScriptedServer] = request.param
    return found
