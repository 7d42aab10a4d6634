"""Tasks and versions as a client sees them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from prefixmux_store.errors import (
    DigestMismatch,
    IncompatiblePrefix,
    InvalidCursor,
    InvalidRequest,
    InvalidTaskId,
    InvalidTenant,
    PreconditionFailed,
    TaskNotFound,
    VersionActive,
    VersionNotFound,
)
from prefixmux_store.format import PrefixMeta, encode
from prefixmux_store.names import digest_of
from prefixmux_store.store import PrefixStore
from prefixmux_store.types import Version
from store.makers import SHAPE, kv, prefix

BAD_IDS = (
    *("", ".", "..", "a/../b", "/a", "a/b", "a\\b", "%2e%2e%2f", "..%5c", "%252e", "a\0b", "\0"),
    *(
        "a" * 65,
        "a" * 255,
        "a" * 10000,
        "CON",
        "A",
        "Task",
        "~",
        "-rf",
        ".hidden",
        "_x",
        "a ",
        " a",
    ),
    *("a\n", "a\r\n", "é", "e\u0301", "ａ", "а", "😀", "\ud800", "a:b", "a@1", "a*", "a?b", "a%s"),
    *("__proto__", "'; DROP TABLE task; --", "{0}", "$(id)", "a,b", "a;b", "a|b", "a&b", "a=b"),
)


def put(
    store: PrefixStore,
    task_id: str,
    seed: int = 0,
    *,
    activate: bool = True,
    tenant: str = "default",
) -> Version:
    return store.commit(tenant, task_id, store.stage(tenant, prefix(seed)), activate=activate)[0]


def test_an_upload_can_be_read_back(store: PrefixStore) -> None:
    meta = PrefixMeta(position_offset={"decoder": 0}, provenance={"base_model": "tiny"})
    data = encode({"decoder": kv(5)}, meta)
    staged = store.stage("default", data)
    version, created = store.commit("default", "e2e", staged, description="first")
    assert created
    assert version == replace(
        version, task_id="e2e", tenant="default", version=1, method="PREFIX_TUNING"
    )
    assert version.digests == (digest_of(data),)
    assert (version.sites, version.position_offset) == ({"decoder": 5}, {"decoder": 0})
    assert (version.prefix_tokens, version.bytes) == (5, len(data))
    assert (version.base_model, version.description) == ("tiny", "first")
    assert store.read_file("default", "e2e", None) == data
    assert (
        store.resolve("default", "e2e", None) == store.get_version("default", "e2e", 1) == version
    )
    task = store.get_task("default", "e2e")
    assert (task.active, task.versions) == (version, 1)
    assert task.created_at == task.updated_at == version.created_at


def test_what_is_staged_is_seen_by_nobody(store: PrefixStore) -> None:
    store.stage("default", prefix())
    assert store.list_tasks("default").items == ()


def test_an_upload_is_checked_before_anything_is_written(store: PrefixStore, folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    with pytest.raises(DigestMismatch):
        store.stage("default", prefix(), digest="sha256:" + "0" * 64)
    with pytest.raises(IncompatiblePrefix):
        store.stage("default", prefix(), shape=replace(SHAPE, sites={}))
    with pytest.raises(InvalidTenant):
        store.stage("../x", prefix())
    assert sorted(folder.rglob("*")) == before
    staged = store.stage("default", prefix(), shape=SHAPE, digest=digest_of(prefix()))
    assert staged.digest == digest_of(prefix())


def test_the_same_content_is_the_same_version(store: PrefixStore) -> None:
    first = put(store, "a", 1)
    second = put(store, "a", 2)
    again, created = store.commit("default", "a", store.stage("default", prefix(1)))
    assert (again, created) == (first, False)
    assert store.get_task("default", "a").active == first
    quiet, created = store.commit("default", "a", store.stage("default", prefix(2)), activate=False)
    assert (quiet, created) == (second, False)
    assert store.get_task("default", "a").active == first
    assert put(store, "b", 1).version == 1


def test_numbers_are_never_used_twice(store: PrefixStore) -> None:
    assert [put(store, "a", seed).version for seed in range(3)] == [1, 2, 3]
    store.delete_version("default", "a", 2)
    assert put(store, "a", 1).version == 4
    store.delete_task("default", "a")
    assert put(store, "a", 0).version == 5
    assert store.get_task("default", "a").versions == 1
    with pytest.raises(VersionNotFound):
        store.get_version("default", "a", 1)
    assert put(store, "b", 0).version == 1
    assert put(store, "a", 0, tenant="other").version == 1


def test_one_version_is_active_or_none(store: PrefixStore) -> None:
    put(store, "a", 1, activate=False)
    assert store.get_task("default", "a").active is None
    with pytest.raises(VersionNotFound):
        store.resolve("default", "a", None)
    assert store.resolve("default", "a", 1).version == 1
    task = store.activate("default", "a", 1)
    assert task.active == store.resolve("default", "a", None)
    put(store, "a", 2)
    assert store.resolve("default", "a", None).version == 2
    put(store, "a", 3, activate=False)
    assert store.resolve("default", "a", None).version == 2
    assert store.activate("default", "a", 3).active == store.get_version("default", "a", 3)


def test_the_active_version_stays(store: PrefixStore) -> None:
    put(store, "a", 1)
    put(store, "a", 2)
    with pytest.raises(VersionActive):
        store.delete_version("default", "a", 2)
    store.delete_version("default", "a", 1)
    with pytest.raises(VersionNotFound):
        store.delete_version("default", "a", 1)
    assert [version.version for version in store.list_versions("default", "a").items] == [2]


def test_a_task_may_lose_all_its_versions(store: PrefixStore) -> None:
    put(store, "a", 1, activate=False)
    store.delete_version("default", "a", 1)
    task = store.get_task("default", "a")
    assert (task.versions, task.active) == (0, None)
    assert store.list_versions("default", "a").items == ()


def test_create_only_refuses_a_live_task(store: PrefixStore) -> None:
    staged = store.stage("default", prefix(1))
    assert store.commit("default", "a", staged, create_only=True)[1]
    with pytest.raises(PreconditionFailed):
        store.commit("default", "a", staged, create_only=True)
    store.delete_task("default", "a")
    assert store.commit("default", "a", staged, create_only=True)[0].version == 2


def test_tenants_do_not_see_each_other(store: PrefixStore, folder: Path) -> None:
    put(store, "a", 1, tenant="one")
    with pytest.raises(TaskNotFound) as foreign:
        store.get_task("two", "a")
    with pytest.raises(TaskNotFound) as missing:
        store.get_task("two", "b")
    assert str(foreign.value) == str(missing.value)
    assert store.list_tasks("two").items == ()
    put(store, "a", 1, tenant="two")
    name = digest_of(prefix(1)).removeprefix("sha256:")
    assert all((folder / "store" / "blobs" / tenant / name).is_file() for tenant in ("one", "two"))
    store.delete_task("one", "a")
    store.gc(-10)
    assert store.read_file("two", "a", None) == prefix(1)


@pytest.mark.parametrize("task_id", BAD_IDS)
def test_bad_task_ids(store: PrefixStore, folder: Path, task_id: str) -> None:
    staged = store.stage("default", prefix())
    before = sorted(folder.rglob("*"))
    with pytest.raises(InvalidTaskId) as caught:
        store.commit("default", task_id, staged)
    assert (caught.value.code, caught.value.param) == ("invalid_request", "task_id")
    reads: tuple[Callable[[], object], ...] = (
        lambda: store.get_task("default", task_id),
        lambda: store.resolve("default", task_id, None),
        lambda: store.list_versions("default", task_id),
        lambda: store.read_file("default", task_id, 1),
        lambda: store.activate("default", task_id, 1),
        lambda: store.delete_task("default", task_id),
        lambda: store.delete_version("default", task_id, 1),
    )
    for read in reads:
        with pytest.raises(TaskNotFound):
            read()
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("tenant", BAD_IDS)
def test_bad_tenants(store: PrefixStore, tenant: str) -> None:
    with pytest.raises(InvalidTenant):
        store.stage(tenant, prefix())
    with pytest.raises(TaskNotFound):
        store.get_task(tenant, "a")
    assert store.list_tasks(tenant).items == ()


@pytest.mark.parametrize("task_id", ["a", "0", "a" * 64, "a.b_c-d", "9z.", "a--"])
def test_good_task_ids(store: PrefixStore, task_id: str) -> None:
    put(store, task_id)
    assert store.get_task("default", task_id).task_id == task_id


@pytest.mark.parametrize("number", [0, -1, 2, 2**63 - 1, 2**63, 2**200, -(2**200)])
def test_numbers_that_no_version_has(store: PrefixStore, number: int) -> None:
    put(store, "a")
    attempts: tuple[Callable[[], object], ...] = (
        lambda: store.resolve("default", "a", number),
        lambda: store.activate("default", "a", number),
        lambda: store.delete_version("default", "a", number),
    )
    for attempt in attempts:
        with pytest.raises(VersionNotFound):
            attempt()


def test_listing_goes_by_pages(store: PrefixStore) -> None:
    staged = store.stage("default", prefix())
    names = sorted(f"task-{number}" for number in range(25))
    for name in names:
        store.commit("default", name, staged)
    seen: list[str] = []
    cursor = None
    for _ in range(3):
        page = store.list_tasks("default", limit=10, cursor=cursor)
        seen += [task.task_id for task in page.items]
        cursor = page.next_cursor
    assert (seen, cursor) == (names, None)
    assert store.list_tasks("default", limit=25).next_cursor is None


def test_a_listing_survives_changes_between_its_pages(store: PrefixStore) -> None:
    staged = store.stage("default", prefix())
    for name in ("a", "b", "c", "d"):
        store.commit("default", name, staged)
    page = store.list_tasks("default", limit=2)
    store.delete_task("default", "b")
    store.commit("default", "aa", staged)
    rest = store.list_tasks("default", limit=2, cursor=page.next_cursor)
    assert [task.task_id for task in rest.items] == ["c", "d"]


def test_queries_are_plain_substrings(store: PrefixStore) -> None:
    staged = store.stage("default", prefix())
    for name in ("a.b", "a_b", "axb", "ab"):
        store.commit("default", name, staged)

    def found(query: str) -> list[str]:
        return [task.task_id for task in store.list_tasks("default", query=query).items]

    assert found("_") == ["a_b"]
    assert found(".") == ["a.b"]
    assert found("b") == ["a.b", "a_b", "ab", "axb"]
    assert found("") == ["a.b", "a_b", "ab", "axb"]
    for nothing in ("%", "A", "*", "\0", "é", "\ud800", "'", '"', "a%b", "x" * 10000):
        assert found(nothing) == []
    page = store.list_tasks("default", limit=1, query="x")
    assert page.next_cursor is None


def test_versions_go_by_pages_too(store: PrefixStore) -> None:
    for seed in range(5):
        put(store, "a", seed)
    page = store.list_versions("default", "a", limit=3)
    rest = store.list_versions("default", "a", limit=3, cursor=page.next_cursor)
    numbers = [version.version for version in itertools.chain(page.items, rest.items)]
    assert (numbers, rest.next_cursor) == ([1, 2, 3, 4, 5], None)


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "=",
        "!!!!",
        "é",
        "\ud800",
        "Li4v",
        "YQ==x",
        "a" * 10000,
        "AA",
        "LTE",
        "OTk5OTk5OTk5OTk5OTk5OTk5OTk5",
    ],
)
def test_cursors_from_elsewhere(store: PrefixStore, cursor: str) -> None:
    put(store, "a")
    with pytest.raises(InvalidCursor):
        store.list_versions("default", "a", cursor=cursor)
    if cursor not in {"OTk5OTk5OTk5OTk5OTk5OTk5OTk5"}:
        with pytest.raises(InvalidCursor):
            store.list_tasks("default", cursor=cursor)


@pytest.mark.parametrize("limit", [0, -1, 501, 10**9])
def test_limits_of_a_page(store: PrefixStore, limit: int) -> None:
    put(store, "a")
    with pytest.raises(InvalidRequest):
        store.list_tasks("default", limit=limit)
    with pytest.raises(InvalidRequest):
        store.list_versions("default", "a", limit=limit)


@pytest.mark.parametrize("text", ["x" * 4097, "é" * 2049, "\ud800"])
def test_descriptions_that_are_none(store: PrefixStore, text: str) -> None:
    staged = store.stage("default", prefix())
    with pytest.raises(InvalidRequest) as caught:
        store.commit("default", "a", staged, description=text)
    assert caught.value.param == "description"
    assert store.list_tasks("default").items == ()


@pytest.mark.parametrize("text", ["", "x" * 4096, "a\0b", "'; --", "😀"])
def test_descriptions_come_back_as_they_were(store: PrefixStore, text: str) -> None:
    staged = store.stage("default", prefix())
    store.commit("default", "a", staged, description=text)
    assert store.resolve("default", "a", None).description == text


def test_times_tell_when_a_task_changed(folder: Path) -> None:
    times = itertools.count(100.0)
    with PrefixStore.open(folder / "store", clock=lambda: next(times)) as store:
        put(store, "a", 1)
        put(store, "a", 2)
        store.activate("default", "a", 1)
        put(store, "a", 3, activate=False)
        task = store.get_task("default", "a")
        assert (task.created_at, task.updated_at) == (100.0, 103.0)
        created = [version.created_at for version in store.list_versions("default", "a").items]
        assert created == [100.0, 101.0, 103.0]
        store.delete_version("default", "a", 2)
        assert store.get_task("default", "a").updated_at == 104.0


def test_a_store_remembers(folder: Path) -> None:
    with PrefixStore.open(folder / "store") as store:
        put(store, "a", 1)
        put(store, "a", 2)
        before = store.list_tasks("default")
    with PrefixStore.open(folder / "store") as store:
        assert store.list_tasks("default") == before
        assert store.read_file("default", "a", 1) == prefix(1)
