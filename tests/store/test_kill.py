"""A writer may die at any moment: what it acknowledged stays, what it deleted stays away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def kill_cycles(folder: Path, cycles: int, *arguments: str, seed: int = 1) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-m", "store.killer", str(folder), str(seed), str(cycles), *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    account: dict[str, int] = json.loads(done.stdout)
    return account


def test_three_hundred_killed_writers(tmp_path: Path) -> None:
    account = kill_cycles(tmp_path / "store", 300)
    assert account["violations"] == 0
    assert account["cycles"] == 300
    # Kills have to hit work, and uploads midway.
    assert account["acknowledged"] > 300
    assert account["begun and there"] > 0
    assert account["begun and not there"] > 50
    assert account["half-written files"] > 10


def test_a_writer_that_promises_too_early_is_found_out(tmp_path: Path) -> None:
    assert kill_cycles(tmp_path / "store", 30, "early")["violations"] > 0


@pytest.mark.long
def test_ten_thousand_killed_writers(tmp_path: Path) -> None:
    account = kill_cycles(tmp_path / "store", 10_000, seed=2)
    assert account["violations"] == 0
    assert account["cycles"] == 10_000
