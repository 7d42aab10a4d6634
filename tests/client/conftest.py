"""What the tests of both clients share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from api.served import Served, served
from client.scripted import AwaitedServer, ScriptedServer
from client.terminal import Terminal

from prefixmux import Client


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


@pytest.fixture(scope="session")
def demo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A real server with the demo's model and two of its tasks."""
    demo = Path(__file__).parents[2] / "demo"
    with served(demo / "model", tmp_path_factory.mktemp("store")) as running:
        with Client(str(running.client.base_url)) as client:
            for name in ("e2e", "hotel"):
                client.prefixes.upload(name, demo / "prefixes" / name)
        yield running
