"""A writer may die at any moment: what it acknowledged stays, what it deleted stays away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
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
    # Kills have to hit work, and uploads midway; on a busy machine that takes more of them.
    wanted = Counter(
        {
            "cycles": 300,
            "acknowledged": 301,
            "begun and there": 1,
            "begun and not there": 51,
            "half-written files": 11,
        }
    )
    account: Counter[str] = Counter()
    for seed in range(1, 6):
        account.update(kill_cycles(tmp_path / f"store-{seed}", 300, seed=seed))
        assert account["violations"] == 0
        if account >= wanted:
            break
    assert account >= wanted


def test_a_writer_that_promises_too_early_is_found_out(tmp_path: Path) -> None:
    assert kill_cycles(tmp_path / "store", 30, "early")["violations"] > 0


@pytest.mark.long
def test_ten_thousand_killed_writers(tmp_path: Path) -> None:
    account = kill_cycles(tmp_path / "store", 10_000, seed=2)
    assert account["violations"] == 0
    assert account["cycles"] == 10_000
