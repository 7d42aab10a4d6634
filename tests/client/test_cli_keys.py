"""`prefixmux keys`: what it prints, what it changes, and how it ends."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from prefixmux.cli import build_app
from prefixmux_store.keys import Key, KeyRing, key_hash
from prefixmux_store.store import PrefixStore

KEY = re.compile(r"pmx_[A-Za-z0-9_-]{43}")


def run(*words: object) -> Result:
    return CliRunner().invoke(build_app(), ["keys", *map(str, words)])


@contextmanager
def ring(folder: Path) -> Iterator[KeyRing]:
    with PrefixStore.open(folder) as store:
        yield store.keys


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


def create(folder: Path, tenant: str = "acme", scope: str = "read") -> Key:
    with ring(folder) as keys:
        return keys.create(tenant, [scope]).record


def test_a_key_is_printed_alone_and_works(folder: Path) -> None:
    words = ("--tenant", "acme", "--scope", "generate", "--scope", "read", "--description", "web")
    result = run("create", "--store", folder, *words)
    assert result.exit_code == 0
    key = result.stdout.removesuffix("\n")
    assert KEY.fullmatch(key)
    assert key not in result.stderr
    with ring(folder) as keys:
        found = keys.find(key_hash(key))
        assert found is not None
        assert (found.tenant, set(found.scopes)) == ("acme", {"generate", "read"})
        assert found.description == "web"
        assert found.id in result.stderr


def test_only_the_first_key_says_that_the_store_is_closed_now(folder: Path) -> None:
    said = [
        run("create", "--store", folder, "--tenant", "a", "--scope", "admin").stderr
        for _ in range(2)
    ]
    assert ["asks everyone for a key" in text for text in said] == [True, False]


def test_with_json_all_is_told_and_stderr_is_empty(folder: Path) -> None:
    result = run("create", "--store", folder, "--tenant", "acme", "--scope", "admin", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    told = json.loads(result.stdout)
    assert KEY.fullmatch(told.pop("key"))
    listed = json.loads(run("ls", "--store", folder, "--json").stdout)
    assert listed == {"items": [told]}
    assert told.keys() == {"id", "tenant", "scopes", "description", "created_at", "revoked_at"}
    assert (told["tenant"], told["scopes"], told["revoked_at"]) == ("acme", ["admin"], None)


def test_a_listing_shows_every_tenant_or_one_and_never_a_key(folder: Path) -> None:
    made = [create(folder, tenant) for tenant in ("acme", "beta")]
    with ring(folder) as keys:
        secret = keys.create("acme", ["write"]).key
    everyone, one = run("ls", "--store", folder), run("ls", "--store", folder, "--tenant", "beta")
    assert all(key.id in everyone.stdout for key in made)
    assert [key.id in one.stdout for key in made] == [False, True]
    assert secret not in everyone.stdout
    assert key_hash(secret) not in everyone.stdout


def test_a_revoked_key_stays_listed(folder: Path) -> None:
    key = create(folder)
    first, again = (run("revoke", key.id, "--store", folder, "--json") for _ in range(2))
    assert (first.exit_code, again.exit_code) == (0, 0)
    assert json.loads(first.stdout) == json.loads(again.stdout)
    assert json.loads(first.stdout)["revoked_at"] >= key.created_at
    assert key.id in run("ls", "--store", folder).stdout
    assert run("revoke", key.id, "--store", folder).stdout == f"revoked {key.id} of acme\n"


@pytest.mark.parametrize("words", [("ls",), ("revoke", "key_0")])
def test_where_no_store_is_none_is_made(folder: Path, words: tuple[str, ...]) -> None:
    result = run(*words, "--store", folder, "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    error = json.loads(result.stderr)["error"]
    assert (error["code"], error["param"]) == ("not_found", "store")
    assert not folder.exists()


def test_an_unknown_id_is_refused(folder: Path) -> None:
    create(folder)
    result = run("revoke", "key_0", "--store", folder)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "There is no key with this id" in result.stderr


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("--tenant", "Acme", "--scope", "read"), 1),
        (("--tenant", "acme", "--scope", "all"), 2),
        (("--tenant", "acme"), 2),
        (("--scope", "read"), 2),
        (("--tenant", "acme", "--scope", "read", "--description", "x" * 4097), 1),
    ],
)
def test_a_wrong_create_says_so_and_makes_no_key(
    folder: Path, words: tuple[str, ...], status: int
) -> None:
    result = run("create", "--store", folder, *words)
    assert (result.exit_code, result.stdout) == (status, "")
    assert result.stderr
    with ring(folder) as keys:
        assert not keys.required()
        assert keys.list() == ()


def test_a_folder_that_cannot_be_a_store_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    result = run("create", "--store", file, "--tenant", "a", "--scope", "read", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "cannot be opened" in json.loads(result.stderr)["error"]["message"]


def test_the_store_comes_from_the_environment_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = create(folder)
    monkeypatch.setenv("PREFIXMUX_STORE", str(folder))
    assert key.id in run("ls").stdout


def test_without_the_servers_part_it_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prefixmux_store.store", None)
    result = run("ls", "--store", folder)
    assert result.exit_code == 2
    assert "pip install 'prefixmux[server]'" in result.stderr
