"""What operators change on a store is in the audit file of its servers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from prefixmux.cli import build_app

CREATE = ("keys", "create", "--tenant", "acme", "--scope", "read", "--scope", "generate")


def run(*words: object) -> Result:
    result = CliRunner().invoke(build_app(), [*map(str, words)])
    assert result.exit_code == 0, result.stderr
    return result


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_changes_are_noted_without_what_is_secret(tmp_path: Path) -> None:
    store = ("--store", tmp_path / "store")
    made = json.loads(run(*CREATE, *store, "--description", "canary", "--json").stdout)
    run("keys", "revoke", made["id"], *store)
    run("tenants", "set", "acme", *store, "--max-tasks", "3")
    run("keys", "ls", *store)
    path = tmp_path / "store" / "audit.jsonl"
    created, revoked, limited = lines(path)
    about = {"tenant": "acme", "key_id": made["id"], "scopes": ["generate", "read"]}
    about["uid"] = os.getuid()
    at = created.pop("at"), revoked.pop("at"), limited.pop("at")
    assert sorted(at) == list(at)
    assert created == {"event": "key_created", **about}
    assert revoked == {"event": "key_revoked", **about}
    assert (limited["event"], limited["tenant"]) == ("limits_set", "acme")
    assert limited["limits"]["max_tasks"] == 3
    assert made["key"] not in path.read_text()
    assert "canary" not in path.read_text()


def test_the_file_is_the_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ("--store", tmp_path / "store")
    run(*CREATE, *store, "--audit-file", tmp_path / "one.jsonl")
    monkeypatch.setenv("PREFIXMUX_AUDIT_FILE", str(tmp_path / "two.jsonl"))
    run(*CREATE, *store)
    run(*CREATE, *store, "--audit-file", "none")
    assert [len(lines(tmp_path / name)) for name in ("one.jsonl", "two.jsonl")] == [1, 1]
    assert not (tmp_path / "store" / "audit.jsonl").exists()


def test_a_key_is_told_even_if_the_file_cannot_be_written(tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "audit.jsonl"
    result = run(*CREATE, "--store", tmp_path / "store", "--audit-file", missing)
    assert result.stdout.startswith("pmx_")
    assert "not in the audit" in result.stderr
