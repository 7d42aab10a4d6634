"""`prefixmux doctor`: each look, what it finds, and the exit status."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from client.scripted import Step, generation, refusal, task
from client.terminal import Terminal

from prefixmux.cli.checks import machine, probe
from prefixmux_store.store import PrefixStore

CPU = {"device": {"type": "cpu", "threads": 2}}
CUDA = {"device": {"type": "cuda", "name": "H", "bfloat16": False, "free": 1 << 30, "total": 2}}
LLAMA = {"model_type": "llama", "architecture": "LlamaForCausalLM"}
PROOF = {
    "family": "causal",
    "device": "cpu",
    "dtype": "float32",
    "methods": ["TEXT"],
    "capacity_tokens": 4096,
}
NOBODY = (httpx2.ConnectError("refused"),)


class Doctor:
    """Runs `doctor` with a made-up look at torch; a real one takes seconds."""

    def __init__(self, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._terminal = terminal
        self._monkeypatch = monkeypatch
        self._folder = folder
        self.asked: list[probe.Question] = []

    def run(
        self,
        *words: str,
        look: Mapping[str, Any] = CPU,
        steps: tuple[Step, ...] = NOBODY,
        code: int = 0,
    ) -> dict[str, tuple[str, str]]:
        """State and message, by what was looked at."""

        def answered(question: probe.Question) -> Mapping[str, Any]:
            self.asked.append(question)
            return look

        self._monkeypatch.setattr(probe, "look", answered)
        store = () if "--store" in words else ("--store", str(self._folder / "store"))
        port = () if "--port" in words else ("--port", "0")
        result = self._terminal.run("doctor", *words, *store, *port, "--json", steps=steps)
        assert result.exit_code == code, result.output
        said = json.loads(result.stdout)
        assert said["ok"] is (code == 0)
        assert all(each["advice"] for each in said["findings"] if each["state"] != "ok")
        return {each["check"]: (each["state"], each["message"]) for each in said["findings"]}


@pytest.fixture
def doctor(terminal: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Doctor:
    return Doctor(terminal, monkeypatch, tmp_path)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_bytes(b"{}")
    return folder


def test_a_fresh_machine_is_fit_and_is_told_what_comes_next(doctor: Doctor) -> None:
    found = doctor.run()
    assert {state for state, _ in found.values()} <= {"ok", "warn"}
    assert found["server"][0] == "warn"
    assert "is not there yet" in found["store"][1]
    assert found["device"] == ("ok", "cpu, 2 threads")


def test_people_read_a_line_for_each_look_and_what_to_do(
    doctor: Doctor, terminal: Terminal, tmp_path: Path
) -> None:
    doctor.run()
    result = terminal.run("doctor", "--store", str(tmp_path), "--port", "0", steps=NOBODY)
    lines = result.stdout.splitlines()
    assert any(line.startswith("ok   torch") for line in lines)
    at = next(number for number, line in enumerate(lines) if line.startswith("warn server"))
    assert lines[at + 1].strip().startswith("Start one")


@pytest.mark.parametrize(
    ("look", "words", "check", "state", "code"),
    [
        ({"device": {"error": "torch cannot be imported"}}, (), "device", "fail", 1),
        (CPU, ("--device", "cuda"), "device", "fail", 1),
        (CPU, ("--dtype", "float16"), "device", "warn", 0),
        (CUDA, (), "device", "ok", 0),
        (CUDA, ("--dtype", "bfloat16"), "dtype", "fail", 1),
    ],
)
def test_devices(
    doctor: Doctor,
    look: Mapping[str, Any],
    words: tuple[str, ...],
    check: str,
    state: str,
    code: int,
) -> None:
    assert doctor.run(*words, look=look, code=code)[check][0] == state


def test_a_package_that_is_missing_or_too_old_is_named(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = {"prefixmux": "1", "torch": "1.0", "safetensors": "9", "uvicorn": "9"}

    def version(name: str) -> str:
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(machine, "version", version)
    found = doctor.run(code=1)
    assert found["torch"][0] == "fail"
    assert found["torch"][1].startswith("1.0, but ")
    assert found["transformers"] == ("fail", "not installed")
    assert found["safetensors"] == ("ok", "9")


def test_little_memory_is_said(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_memory", lambda: 1 << 20)
    assert doctor.run()["memory"] == ("warn", "1 MiB available")


def test_a_model_that_was_not_loaded_is_not_called_supported(doctor: Doctor, model: Path) -> None:
    found = doctor.run(str(model), look={**CPU, "config": LLAMA})
    assert found["model"] == ("ok", "LlamaForCausalLM (llama)")
    assert found["weights"] == ("ok", "2 B in 1 file")
    assert found["support"] == ("warn", "not proven")
    assert doctor.asked == [probe.Question(str(model), "auto", "auto", False)]


@pytest.mark.parametrize(
    ("proof", "state", "code"), [(PROOF, "ok", 0), ({"error": "bloom: no"}, "fail", 1)]
)
def test_a_model_is_proven_by_loading_it(
    doctor: Doctor, model: Path, proof: dict[str, object], state: str, code: int
) -> None:
    look = {**CPU, "config": LLAMA, "proof": proof}
    found = doctor.run(str(model), "--prove", "--dtype", "float32", look=look, code=code)
    assert found["support"][0] == state
    assert doctor.asked == [probe.Question(str(model), "auto", "float32", True)]


@pytest.mark.parametrize(
    ("missing", "check", "state", "code"),
    [
        ("config.json", "model", "fail", 1),
        ("model.safetensors", "weights", "fail", 1),
        ("tokenizer.json", "tokenizer", "warn", 0),
    ],
)
def test_what_a_model_lacks_is_named(
    doctor: Doctor, model: Path, missing: str, check: str, state: str, code: int
) -> None:
    (model / missing).unlink()
    found = doctor.run(str(model), look={**CPU, "config": LLAMA}, code=code)
    assert found[check][0] == state


def test_a_config_that_nobody_knows_fails(doctor: Doctor, model: Path) -> None:
    look = {**CPU, "config": {"error": "ValueError: no such model_type"}}
    assert doctor.run(str(model), look=look, code=1)["model"][0] == "fail"


def test_a_model_of_the_hub_is_not_fetched(doctor: Doctor) -> None:
    found = doctor.run("gpt2", look={**CPU, "config": LLAMA})
    assert found["model"] == ("warn", "gpt2 is no folder here")


def test_a_store_that_is_whole_and_private(doctor: Doctor, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    PrefixStore.open(folder).close()
    folder.chmod(0o700)
    found = doctor.run()
    assert found["store"] == ("ok", f"{folder} opens")
    assert found["files"] == ("ok", "0 files, none damaged")
    assert found["permissions"] == ("ok", "700")


@pytest.mark.parametrize(("mode", "state", "code"), [(0o755, "warn", 0), (0o777, "fail", 1)])
def test_a_store_that_others_reach(
    doctor: Doctor, tmp_path: Path, mode: int, state: str, code: int
) -> None:
    folder = tmp_path / "store"
    PrefixStore.open(folder).close()
    folder.chmod(mode)
    assert doctor.run(code=code)["permissions"][0] == state


def test_a_store_that_is_none_fails(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    found = doctor.run(code=1)
    assert found["store"][0] == "fail"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_that_cannot_be_made_fails(doctor: Doctor, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert doctor.run(code=1)["store"][0] == "fail"


class Usage(NamedTuple):
    free: int


@pytest.mark.parametrize(("free", "state", "code"), [(1 << 29, "warn", 0), (1 << 20, "fail", 1)])
def test_a_full_disk_is_said(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, free: int, state: str, code: int
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(free))
    assert doctor.run(code=code)["room"][0] == state


READY = httpx2.Response(200, json={"status": "ready"})
NO_TASK = refusal(404, "task_not_found")
FORBIDDEN = refusal(403, "forbidden")


def test_a_server_that_was_named_has_to_be_there(doctor: Doctor) -> None:
    found = doctor.run("--server", "http://there:1", code=1)
    assert found["server"] == ("fail", "nothing answers at http://there:1")


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ((NO_TASK, NO_TASK, NO_TASK), "may generate, read, write"),
        ((FORBIDDEN, NO_TASK, FORBIDDEN), "may read"),
        (
            (
                httpx2.Response(200, json=generation()),
                httpx2.Response(200, json=task()),
                FORBIDDEN,
            ),
            "may generate, read",
        ),
    ],
)
def test_a_ready_server_tells_what_the_key_may(
    doctor: Doctor, steps: tuple[Step, ...], said: str
) -> None:
    found = doctor.run(steps=(READY, *steps))
    assert found["server"][0] == "ok"
    assert found["key"] == ("ok", said)


def test_a_key_without_any_scope_is_a_warning(doctor: Doctor) -> None:
    found = doctor.run(steps=(READY, FORBIDDEN, FORBIDDEN, FORBIDDEN))
    assert found["key"][0] == "warn"


@pytest.mark.parametrize("key", [None, "k-1"])
def test_a_key_that_the_server_does_not_know_fails(doctor: Doctor, key: str | None) -> None:
    words = () if key is None else ("--api-key", key)
    found = doctor.run(*words, steps=(READY, refusal(401, "unauthorized")), code=1)
    assert found["key"][0] == "fail"
    assert ("does not know" in found["key"][1]) is (key is not None)


def test_a_server_that_is_not_ready_fails(doctor: Doctor) -> None:
    starting = httpx2.Response(503, json={"status": "starting", "reason": "loading"})
    steps = (starting, *[refusal(503, "engine_unavailable")] * 3)
    found = doctor.run(steps=steps, code=1)
    assert found["server"][1].endswith("is not ready: loading")
    assert found["key"][0] == "warn"


def test_a_port_that_is_taken_is_said(doctor: Doctor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = doctor.run("--port", str(taken.getsockname()[1]))
    assert found["port"][0] == "warn"


@pytest.mark.parametrize("line", ["doctor --prove", "doctor --port x", "doctor --device tpu"])
def test_usage_errors_exit_2(terminal: Terminal, line: str) -> None:
    assert terminal.run(*line.split()).exit_code == 2


def test_the_look_at_torch_and_a_config_is_real(model: Path) -> None:
    (model / "config.json").write_text('{"model_type": "gpt2", "architectures": ["G"]}')
    found = probe.look(probe.Question(str(model), "cpu", "auto", False))
    assert found["device"]["type"] in ("cpu", "cuda")
    assert found["config"] == {"model_type": "gpt2", "architecture": "G"}
    assert "proof" not in found


def test_a_look_that_dies_is_an_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import os; os._exit(7)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = probe.look(probe.Question(str(tmp_path), "cpu", "auto", True))
    parts = ("device", "config", "proof")
    assert found == {part: {"error": "it ended with status 7"} for part in parts}
