"""`prefixmux tenants`: limits set and cleared, and what is shown of a tenant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from store.makers import prefix
from typer.testing import CliRunner, Result

from prefixmux.cli import build_app
from prefixmux_store.store import PrefixStore
from prefixmux_store.tenants import TenantLimits
from prefixmux_store.usage import UsageEntry

UNLIMITED = {
    "max_tasks": None,
    "max_bytes": None,
    "max_running": None,
    "max_waiting": None,
    "tokens_per_minute": None,
    "weight": 1.0,
}


def run(*words: object) -> Result:
    return CliRunner().invoke(build_app(), ["tenants", *map(str, words)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store in which the tenant acme has one task of 544 bytes, used once."""
    root = tmp_path / "store"
    with PrefixStore.open(root) as store:
        store.commit("acme", "summary", store.stage("acme", prefix()))
        store.usage.add([UsageEntry("acme", "summary", 1, 20, 3, 5)])
        store.usage.add([UsageEntry("acme", None, 2, 8, 0, 4)])
    return root


def limits(folder: Path, tenant: str = "acme") -> TenantLimits:
    with PrefixStore.open(folder) as store:
        return store.tenants.limits(tenant)


def test_limits_are_set_and_what_is_not_named_stays(folder: Path) -> None:
    every = ("--max-tasks", 5, "--max-bytes", 2**30, "--max-running", 8, "--max-waiting", 16)
    words = (*every, "--tokens-per-minute", 60000, "--weight", 2.5)
    assert run("set", "acme", "--store", folder, *words).exit_code == 0
    assert limits(folder) == TenantLimits(5, 2**30, 8, 16, 60000, 2.5)
    result = run("set", "acme", "--store", folder, "--max-tasks", 6, "--json")
    assert limits(folder) == TenantLimits(6, 2**30, 8, 16, 60000, 2.5)
    assert json.loads(result.stdout) == {
        "tenant": "acme",
        "limits": {
            "max_tasks": 6,
            "max_bytes": 2**30,
            "max_running": 8,
            "max_waiting": 16,
            "tokens_per_minute": 60000,
            "weight": 2.5,
        },
    }


def test_none_takes_a_limit_away(folder: Path) -> None:
    run("set", "acme", "--store", folder, "--max-tasks", 5, "--max-running", 8, "--weight", 3)
    result = run("set", "acme", "--store", folder, "--max-tasks", "none", "--weight", "none")
    assert result.exit_code == 0
    assert limits(folder) == TenantLimits(max_running=8)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ((), 2),
        (("--max-tasks", "many"), 2),
        (("--max-tasks", "1.5"), 2),
        (("--max-tasks", "0"), 1),
        (("--max-bytes", "-1"), 1),
        (("--max-running", str(2**60)), 1),
        (("--weight", "0"), 1),
        (("--weight", "nan"), 1),
        (("--weight", "inf"), 1),
        (("--weight", "heavy"), 2),
        (("--max-tasks", "3", "--weight", "-1"), 1),
    ],
)
def test_a_wrong_limit_changes_nothing(folder: Path, words: tuple[str, ...], status: int) -> None:
    result = run("set", "acme", "--store", folder, *words)
    assert (result.exit_code, result.stdout) == (status, "")
    assert result.stderr
    assert limits(folder) == TenantLimits()


def test_a_refusal_names_the_limit(folder: Path) -> None:
    result = run("set", "acme", "--store", folder, "--max-tasks", "0", "--json")
    error = json.loads(result.stderr)["error"]
    assert (error["code"], error["param"]) == ("invalid_request", "max_tasks")


def test_every_tenant_that_left_a_trace_is_listed(folder: Path) -> None:
    with PrefixStore.open(folder) as store:
        store.keys.create("keyed", ["read"])
        store.tenants.set("limited", max_tasks=1)
        store.usage.add([UsageEntry("used", None, 1, 1, 0, 1)])
    items = json.loads(run("ls", "--store", folder, "--json").stdout)["items"]
    assert [item["tenant"] for item in items] == ["acme", "keyed", "limited", "used"]
    assert items[0] == {
        "tenant": "acme",
        "tasks": 1,
        "versions": 1,
        "bytes": len(prefix()),
        "limits": UNLIMITED,
    }
    assert items[2]["limits"] == {**UNLIMITED, "max_tasks": 1}
    table = run("ls", "--store", folder).stdout.splitlines()
    assert [line.split()[0] for line in table] == ["TENANT", "acme", "keyed", "limited", "used"]


def test_an_empty_store_has_no_tenants(tmp_path: Path) -> None:
    PrefixStore.open(tmp_path / "new").close()
    assert json.loads(run("ls", "--store", tmp_path / "new", "--json").stdout) == {"items": []}
    assert run("ls", "--store", tmp_path / "new").exit_code == 0


def test_show_tells_limits_holdings_and_usage(folder: Path) -> None:
    told = json.loads(run("show", "acme", "--store", folder, "--json").stdout)
    assert told == {
        "tenant": "acme",
        "tasks": 1,
        "versions": 1,
        "bytes": len(prefix()),
        "limits": UNLIMITED,
        "items": [
            {
                "task_id": None,
                "requests": 2,
                "prompt_tokens": 8,
                "prefix_tokens": 0,
                "generated_tokens": 4,
            },
            {
                "task_id": "summary",
                "requests": 1,
                "prompt_tokens": 20,
                "prefix_tokens": 3,
                "generated_tokens": 5,
            },
        ],
    }
    text = run("show", "acme", "--store", folder).stdout
    assert row("bytes", len(prefix())) in words_of(text)
    assert row("summary", 1, 20, 3, 5) in words_of(text)


def test_a_tenant_without_a_trace_has_the_default_limits(folder: Path) -> None:
    told = json.loads(run("show", "nobody", "--store", folder, "--json").stdout)
    assert (told["limits"], told["tasks"], told["items"]) == (UNLIMITED, 0, [])


@pytest.mark.parametrize("command", ["set", "show"])
def test_a_name_that_no_tenant_can_have_is_refused(folder: Path, command: str) -> None:
    words = ("--max-tasks", "1") if command == "set" else ()
    result = run(command, "../x", "--store", folder, *words)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "A tenant has 1 to 64 characters" in result.stderr


@pytest.mark.parametrize("words", [("ls",), ("show", "acme")])
def test_where_no_store_is_none_is_made(tmp_path: Path, words: tuple[str, ...]) -> None:
    assert run(*words, "--store", tmp_path / "nowhere").exit_code == 1
    assert not (tmp_path / "nowhere").exists()


def words_of(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def row(*cells: object) -> list[str]:
    return list(map(str, cells))
