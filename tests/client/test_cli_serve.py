"""`prefixmux serve`: hands over the given flags, and only those."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from types import ModuleType

import pytest
from typer.testing import CliRunner, Result

from prefixmux.cli import build_app
from prefixmux_server.settings import Settings

FLAGS: dict[str, object] = {
    "store": "prefixes",
    "host": "0.0.0.0",
    "port": 0,
    "device": "cpu",
    "dtype": "bfloat16",
    "max_batch_rows": 8,
    "max_batch_tokens": 128,
    "max_waiting": 16,
    "kv_tokens": 4096,
    "prefix_host_bytes": 1000,
    "prefix_device_bytes": 2000,
    "max_prefix_tokens": 64,
    "threads": 2,
    "layout": "slots",
    "max_body_bytes": 4000,
    "max_upload_bytes": 5000,
    "max_connections": 100,
    "max_request_seconds": 60.5,
    "hang_seconds": 7.5,
    "drain_seconds": 2.5,
    "preload": "e2e,acme/scan",
    "metrics_max_tasks": 7,
    "audit_file": "audit.jsonl",
    "audit_max_bytes": 1000,
    "audit_backups": 3,
    "config": "server.yaml",
}
SWITCHES: dict[str, object] = {"allow_anonymous": True, "metrics_open": True}


class FakeServer(ModuleType):
    """Stands for `prefixmux_server.main`."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("prefixmux_server.main")
        self.exit_code = exit_code
        self.given: Mapping[str, object] = {}

    def main(self, argv: Mapping[str, object]) -> int:
        self.given = argv
        return self.exit_code


def serve(monkeypatch: pytest.MonkeyPatch, server: ModuleType | None, *words: str) -> Result:
    monkeypatch.setitem(sys.modules, "prefixmux_server.main", server)
    return CliRunner().invoke(build_app(), ["serve", *words])


def test_only_given_flags_are_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFIXMUX_PORT", "1234")
    server = FakeServer(0)
    assert serve(monkeypatch, server, "gpt2", "--store", "here").exit_code == 0
    assert server.given == {"model": "gpt2", "store": "here"}


def test_every_flag_is_handed_over_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer(0)
    words = [f"--{name.replace('_', '-')}={value}" for name, value in FLAGS.items()]
    words += [f"--{name.replace('_', '-')}" for name in SWITCHES]
    assert serve(monkeypatch, server, "gpt2", *words).exit_code == 0
    assert server.given == {"model": "gpt2", **SWITCHES, **FLAGS}


def test_every_setting_of_the_server_is_a_flag() -> None:
    assert {"model", *SWITCHES, *FLAGS} == set(Settings.model_fields)


@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_exit_code_is_the_servers(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    assert serve(monkeypatch, FakeServer(code), "gpt2").exit_code == code


@pytest.mark.parametrize("words", [(), ("m", "--device", "tpu"), ("m", "--port", "x"), ("m", "n")])
def test_usage_errors_exit_2(monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    server = FakeServer(0)
    assert serve(monkeypatch, server, *words).exit_code == 2
    assert server.given == {}


def test_without_the_server_extra_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    result = serve(monkeypatch, None, "gpt2")
    assert result.exit_code == 2
    assert "pip install 'prefixmux[server]'" in result.stderr


def test_the_module_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefixmux.cli", "serve"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "MODEL" in done.stderr
