"""`prefixmux store`: verify, gc, backup, on a store of this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from service.fakes import native
from typer.testing import CliRunner, Result

from prefixmux.cli import build_app
from prefixmux_store.store import PrefixStore


def run(*words: str) -> Result:
    return CliRunner().invoke(build_app(), ["store", *words])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store with one task, and one that was deleted."""
    folder = tmp_path / "store"
    with PrefixStore.open(folder) as store:
        for task_id, fill in (("kept", 0.5), ("gone", 0.25)):
            store.commit("acme", task_id, store.stage("acme", native(fill=fill)))
        store.delete_task("acme", "gone")
    return folder


def blobs(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "blobs").rglob("*") if path.is_file())


def test_a_whole_store_verifies(folder: Path) -> None:
    result = run("verify", "--store", str(folder))
    assert (result.exit_code, result.stdout) == (0, "1 files, none missing or damaged\n")
    shown = json.loads(run("verify", "--store", str(folder), "--json").stdout)
    assert shown == {"checked": 1, "ok": True, "items": []}


def test_a_damaged_file_is_named_and_exits_1(folder: Path) -> None:
    for path in blobs(folder):
        path.chmod(0o600)
        path.write_bytes(b"x" * path.stat().st_size)
    result = run("verify", "--store", str(folder))
    assert result.exit_code == 1
    assert "corrupt" in result.stdout
    assert "acme" in result.stdout
    shown = run("verify", "--store", str(folder), "--json")
    assert shown.exit_code == 1
    (item,) = json.loads(shown.stdout)["items"]
    assert (item["state"], item["tenant"]) == ("corrupt", "acme")
    assert item["digest"].startswith("sha256:")


def test_gc_keeps_what_is_young_and_removes_what_is_not(folder: Path) -> None:
    assert run("gc", "--store", str(folder)).stdout == "removed 0 files, 0 B\n"
    shown = json.loads(run("gc", "--store", str(folder), "--grace-seconds", "0", "--json").stdout)
    assert shown["blobs"] == 1
    assert shown["bytes"] > 0
    assert len(blobs(folder)) == 1


def test_a_backup_is_a_store(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    result = run("backup", str(target), "--store", str(folder))
    assert (result.exit_code, result.stdout) == (0, "1 files, none missing or damaged\n")
    with PrefixStore.open(target) as copy:
        assert copy.resolve("acme", "kept", None).version == 1


def test_a_backup_over_a_store_is_refused(folder: Path) -> None:
    result = run("backup", str(folder), "--store", str(folder), "--json")
    assert result.exit_code == 1
    assert json.loads(result.stderr)["error"]["message"]


@pytest.mark.parametrize("words", [("verify",), ("gc",), ("backup", "there")])
def test_where_there_is_no_store_nothing_is_made(tmp_path: Path, words: tuple[str, ...]) -> None:
    result = run(*words, "--store", str(tmp_path / "none"))
    assert result.exit_code == 1
    assert "no store" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [("verify",), ("gc", "--store", "x", "--grace-seconds", "-1")])
def test_usage_errors_exit_2(words: tuple[str, ...]) -> None:
    assert run(*words).exit_code == 2
