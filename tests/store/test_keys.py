"""Keys: made once, found by hash, revoked, and never forgotten."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from prefixmux_store.errors import InvalidRequest, InvalidTenant, KeyNotFound
from prefixmux_store.keys import SCOPES, key_hash
from prefixmux_store.opening import CATALOGUE_NAME
from prefixmux_store.store import PrefixStore


def test_a_key_is_found_by_its_hash_alone(store: PrefixStore) -> None:
    made = store.keys.create("acme", ["read", "generate"], "the web app")
    assert re.fullmatch(r"pmx_[A-Za-z0-9_-]{43}", made.key)
    digest = hashlib.sha256(made.key.encode()).hexdigest()
    assert digest == key_hash(made.key)
    assert store.keys.find(digest) == made.record
    assert store.keys.find(made.key) is None
    assert store.keys.find(digest.upper()) is None
    record = made.record
    assert (record.tenant, record.scopes) == ("acme", frozenset({"generate", "read"}))
    assert (record.description, record.revoked_at) == ("the web app", None)


def test_no_file_of_the_store_holds_the_key(store: PrefixStore, folder: Path) -> None:
    key = store.keys.create("acme", ["read"]).key
    found = [path for path in folder.rglob("*") if path.is_file()]
    assert any(key_hash(key).encode() in path.read_bytes() for path in found)
    assert not any(key.encode() in path.read_bytes() for path in found)
    assert not any(key.removeprefix("pmx_").encode() in path.read_bytes() for path in found)


def test_a_new_key_does_not_show_itself(store: PrefixStore) -> None:
    made = store.keys.create("acme", ["read"])
    assert made.key not in f"{made!r} {made}"


def test_keys_differ(store: PrefixStore) -> None:
    made = [store.keys.create("acme", ["read"]) for _ in range(50)]
    assert len({new.key for new in made}) == len({new.record.id for new in made}) == 50


def test_a_revoked_key_is_listed_but_not_found(folder: Path) -> None:
    now = 10.0
    with PrefixStore.open(folder / "store", clock=lambda: now) as store:
        made = store.keys.create("acme", ["admin"])
        now = 20.0
        revoked = store.keys.revoke(made.record.id)
        assert revoked == replace(made.record, revoked_at=20.0)
        assert store.keys.find(key_hash(made.key)) is None
        now = 30.0
        assert store.keys.revoke(made.record.id) == revoked
        assert store.keys.list() == (revoked,)


def test_a_listing_is_in_order_and_of_one_tenant_or_all(folder: Path) -> None:
    now = 0.0
    with PrefixStore.open(folder / "store", clock=lambda: now) as store:
        keys = []
        for tenant in ("b", "a", "b"):
            now += 1
            keys.append(store.keys.create(tenant, ["read"]).record)
        assert store.keys.list() == tuple(keys)
        assert store.keys.list("b") == (keys[0], keys[2])
        assert store.keys.list("nobody") == ()


def test_once_there_was_a_key_one_is_required_for_ever(folder: Path) -> None:
    with PrefixStore.open(folder / "store") as store:
        assert not store.keys.required()
        key = store.keys.create("acme", ["read"]).record
        assert store.keys.required()
        store.keys.revoke(key.id)
        assert store.keys.required()
    with closing(sqlite3.connect(folder / "store" / CATALOGUE_NAME)) as db:
        db.execute("DELETE FROM api_key")
        db.commit()
    with PrefixStore.open(folder / "store") as store:
        assert store.keys.list() == ()
        assert store.keys.required()
        store.backup(folder / "copy")
    with PrefixStore.open(folder / "copy") as copy:
        assert copy.keys.required()


def test_another_process_sees_a_change_at_once(store: PrefixStore, folder: Path) -> None:
    with PrefixStore.open(folder / "store") as other:
        assert not other.keys.required()
        made = store.keys.create("acme", ["read"])
        assert other.keys.required()
        assert other.keys.find(key_hash(made.key)) == made.record
        store.keys.revoke(made.record.id)
        assert other.keys.find(key_hash(made.key)) is None


@pytest.mark.parametrize("scopes", [[], ["all"], ["read", "READ"], ["read write"], ["read", ""]])
def test_scopes_that_are_none_make_no_key(store: PrefixStore, scopes: Iterable[str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        store.keys.create("acme", scopes)
    assert caught.value.param == "scopes"
    assert (store.keys.list(), store.keys.required()) == ((), False)


@pytest.mark.parametrize("tenant", ["", "Acme", "../x", "a b", "x" * 65, "ünï"])
def test_names_that_no_tenant_has_make_no_key(store: PrefixStore, tenant: str) -> None:
    with pytest.raises(InvalidTenant):
        store.keys.create(tenant, ["read"])
    assert not store.keys.required()


@pytest.mark.parametrize("text", ["x" * 4097, "\ud800"])
def test_descriptions_that_cannot_be_kept_make_no_key(store: PrefixStore, text: str) -> None:
    with pytest.raises(InvalidRequest):
        store.keys.create("acme", ["read"], text)
    assert not store.keys.required()


def test_every_scope_is_kept(store: PrefixStore) -> None:
    made = store.keys.create("acme", SCOPES)
    assert store.keys.list()[0].scopes == made.record.scopes == frozenset(SCOPES)


@pytest.mark.parametrize("key_id", ["", "key_0", "' OR 1=1 --", "\x00"])
def test_an_unknown_id_revokes_nothing(store: PrefixStore, key_id: str) -> None:
    made = store.keys.create("acme", ["read"]).record
    with pytest.raises(KeyNotFound) as caught:
        store.keys.revoke(key_id)
    assert caught.value.code == "not_found"
    assert store.keys.list() == (made,)


@pytest.mark.parametrize("text", ["", "pmx_", "\x00", "\ud800", "x" * 10_000])
def test_any_text_can_be_looked_for(store: PrefixStore, text: str) -> None:
    store.keys.create("acme", ["read"])
    assert store.keys.find(key_hash(text)) is None
