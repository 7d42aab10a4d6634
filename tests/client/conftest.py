"""What the tests of both clients share."""

from __future__ import annotations

import pytest
from client.scripted import AwaitedServer, ScriptedServer
from client.terminal import Terminal


@pytest.fixture(params=[ScriptedServer, AwaitedServer], ids=["blocking", "awaited"])
def scripted(request: pytest.FixtureRequest) -> type[ScriptedServer]:
    """Makes a server whose `client()` is the blocking client, then one with the awaited."""
    found: type[ScriptedServer] = request.param
    return found


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.delenv("PREFIXMUX_BASE_URL", raising=False)
    monkeypatch.delenv("PREFIXMUX_API_KEY", raising=False)
    return Terminal(monkeypatch)
