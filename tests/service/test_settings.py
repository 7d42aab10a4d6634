from __future__ import annotations

import re
from pathlib import Path

import pytest

from prefixmux_server.errors import UsageError
from prefixmux_server.settings import Settings, resolve

FLAGS = {"model": "m"}


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"PREFIXMUX_{name.upper()}", raising=False)


def file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(text, "utf-8")
    return str(path)


def test_the_contracts_defaults() -> None:
    settings = resolve(FLAGS)
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert (settings.device, settings.dtype) == ("auto", "auto")
    assert (settings.max_batch_rows, settings.max_batch_tokens) == (64, 2048)
    assert (settings.max_waiting, settings.max_prefix_tokens) == (1024, 1024)
    assert (settings.max_body_bytes, settings.max_upload_bytes) == (1048576, 1073741824)
    assert settings.drain_seconds == 30
    assert not settings.allow_anonymous


def test_flag_over_environment_over_file_over_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = file(tmp_path, "port: 1\nmax-waiting: 1\nmax_batch_rows: 1\n")
    monkeypatch.setenv("PREFIXMUX_PORT", "2")
    monkeypatch.setenv("PREFIXMUX_MAX_WAITING", "2")
    settings = resolve({**FLAGS, "config": config, "port": 3})
    assert (settings.port, settings.max_waiting, settings.max_batch_rows) == (3, 2, 1)
    assert settings.max_batch_tokens == 2048


def test_the_environment_may_name_the_file_and_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFIXMUX_CONFIG", file(tmp_path, "allow-anonymous: true"))
    monkeypatch.setenv("PREFIXMUX_MODEL", "from the environment")
    monkeypatch.setenv("PREFIXMUX_HOST", "")
    settings = resolve({})
    assert (settings.model, settings.allow_anonymous) == ("from the environment", True)
    assert settings.host == "127.0.0.1"


def test_a_flag_that_is_none_was_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFIXMUX_DTYPE", "bfloat16")
    assert resolve({**FLAGS, "dtype": None}).dtype == "bfloat16"


def test_the_clients_variables_are_none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFIXMUX_BASE_URL", "http://elsewhere")
    assert resolve(FLAGS).model == "m"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({}, "model"),
        ({**FLAGS, "port": 65536}, "port"),
        ({**FLAGS, "port": "x"}, "port"),
        ({**FLAGS, "device": "tpu"}, "device"),
        ({**FLAGS, "max-batch-rows": 0}, "max-batch-rows"),
        ({**FLAGS, "drain-seconds": -1}, "drain-seconds"),
        ({**FLAGS, "drain-seconds": float("nan")}, "drain-seconds"),
        ({**FLAGS, "colour": "red"}, "colour"),
        ({**FLAGS, "config": "/no/such/file"}, "--config"),
    ],
)
def test_what_is_wrong_is_named(flags: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        resolve(flags)


@pytest.mark.parametrize("text", ["colour: red", "- port", "port: [1", "text", "port: 1\nport2: 2"])
def test_bad_files(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError):
        resolve({**FLAGS, "config": file(tmp_path, text)})


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert resolve({**FLAGS, "config": file(tmp_path, "")}).port == 8000


def test_the_engine_is_told_all_that_is_its_own() -> None:
    flags = {
        "model": "m",
        "store": "s",
        "device": "cpu",
        "dtype": "float32",
        "layout": "slots",
        "threads": 2,
        "max_batch_rows": 3,
        "max_batch_tokens": 4,
        "max_waiting": 5,
        "kv_tokens": 6,
        "prefix_host_bytes": 7,
        "prefix_device_bytes": 8,
        "max_prefix_tokens": 9,
    }
    assert vars(resolve(flags).engine) == flags


def test_a_step_must_hold_a_token_of_every_row() -> None:
    with pytest.raises(UsageError) as refused:
        resolve({**FLAGS, "max_batch_rows": 8, "max_batch_tokens": 7})
    assert refused.value.message == "max-batch-tokens must be at least max-batch-rows."
    assert resolve({**FLAGS, "max_batch_rows": 8, "max_batch_tokens": 8}).max_batch_tokens == 8


def test_the_operating_guide_names_every_flag() -> None:
    guide = Path(__file__).parents[2] / "docs/operating.md"
    told = set(re.findall(r"--[a-z][a-z-]+", guide.read_text("utf-8")))
    flags = {f"--{name.replace('_', '-')}" for name in Settings.model_fields if name != "model"}
    assert flags <= told
