"""The demonstration as a person runs it, against the real server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from demo.run import FOLDER
from demo.server import DemoError, serving
from demo.tasks import TASKS


def _demo(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "demo.run", *flags]
    return subprocess.run(
        command, cwd=FOLDER.parent, capture_output=True, text=True, timeout=240, check=False
    )


def test_the_demo_answers_for_every_task_and_ends_cleanly() -> None:
    ran = _demo()
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.rstrip().endswith("server stopped, exit code 0")
    for task in TASKS:
        assert f" {task.task_id} " in ran.stdout
    assert "no longer recorded" not in ran.stdout


def test_a_port_that_cannot_be_had_is_told() -> None:
    ran = _demo("--port", "1234567")
    assert ran.returncode == 1
    assert "the server did not start" in ran.stderr
    assert "Traceback (most recent call last)" not in ran.stdout


def test_a_folder_that_is_no_model_is_told(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DemoError, match="did not start"), serving(empty, tmp_path, 0):
        pytest.fail("served an empty folder")
