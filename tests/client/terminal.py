"""Runs command lines against a scripted server."""

from __future__ import annotations

import pytest
from client.scripted import ScriptedServer, Step
from typer.testing import CliRunner, Result

from prefixmux import Client
from prefixmux.cli import build_app, session


class Terminal:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.keys: list[str | None] = []

    def run(self, *words: str, steps: tuple[Step, ...] = (), stdin: str | bytes = "") -> Result:
        self.server = ScriptedServer(*steps)
        self._monkeypatch.setattr(session, "Client", self._client)
        return CliRunner().invoke(build_app(), list(words), input=stdin)

    def _client(self, base_url: str | None, api_key: str | None) -> Client:
        self.keys.append(api_key)
        return Client(base_url, api_key, max_retries=0, http_client=self.server.http())
