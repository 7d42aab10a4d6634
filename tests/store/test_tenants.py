"""Limits of tenants, what they have, and what happens where the limits end."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from prefixmux_store.errors import InvalidRequest, InvalidTenant, QuotaExceeded, TenantFull
from prefixmux_store.store import PrefixStore
from prefixmux_store.tenants import Footprint, KnownTenant, TenantLimits
from prefixmux_store.types import Version
from prefixmux_store.usage import UsageEntry
from store.makers import prefix

SIZE = len(prefix())


def put(store: PrefixStore, task_id: str, content: int = 0, tenant: str = "acme") -> Version:
    return store.commit(tenant, task_id, store.stage(tenant, prefix(content)))[0]


def test_limits_are_kept_and_cleared_one_by_one(store: PrefixStore, folder: Path) -> None:
    assert store.tenants.limits("acme") == TenantLimits()
    assert store.tenants.set("acme", max_tasks=3, weight=2) == TenantLimits(3, weight=2.0)
    every = {"max_bytes": 4, "max_running": 5, "max_waiting": 6, "tokens_per_minute": 7}
    assert store.tenants.set("acme", **every) == TenantLimits(3, 4, 5, 6, 7, 2.0)
    with PrefixStore.open(folder / "store") as other:
        assert other.tenants.limits("acme") == TenantLimits(3, 4, 5, 6, 7, 2.0)
    cleared = store.tenants.set("acme", max_bytes=None, weight=None)
    assert cleared == TenantLimits(3, None, 5, 6, 7, 1.0)
    assert store.tenants.limits("beta") == TenantLimits()


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3", math.nan, 2**53 + 1])
@pytest.mark.parametrize(
    "name", ["max_tasks", "max_bytes", "max_running", "max_waiting", "tokens_per_minute"]
)
def test_counts_are_whole_and_positive(store: PrefixStore, name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        store.tenants.set("acme", **{"weight": 2.0, name: value})
    assert caught.value.param == name
    assert store.tenants.limits("acme") == TenantLimits()


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, True, "1", 1e-7, 1e7, 10**400])
def test_a_weight_is_a_number_that_can_be_divided_by(store: PrefixStore, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        store.tenants.set("acme", weight=value)
    assert caught.value.param == "weight"


def test_unknown_limits_and_bad_names_are_refused(store: PrefixStore) -> None:
    with pytest.raises(InvalidRequest, match="There is no such limit"):
        store.tenants.set("acme", max_fun=1)
    with pytest.raises(InvalidTenant):
        store.tenants.set("../x", max_tasks=1)
    with pytest.raises(InvalidTenant):
        store.tenants.get("../x")


def test_the_footprint_counts_each_file_once(store: PrefixStore) -> None:
    assert store.footprint("acme") == Footprint()
    put(store, "a", 0)
    put(store, "b", 0)
    put(store, "b", 1)
    assert store.footprint("acme") == Footprint(2, 3, 2 * SIZE)
    store.compose("acme", "c", [("a", None), ("a", None), ("b", None)])
    assert store.footprint("acme") == Footprint(3, 4, 2 * SIZE)
    put(store, "a", 0)
    assert store.footprint("acme") == Footprint(3, 4, 2 * SIZE)
    store.delete_task("acme", "b")
    assert store.footprint("acme") == Footprint(2, 2, 2 * SIZE)
    store.delete_task("acme", "c")
    assert store.footprint("acme") == Footprint(1, 1, SIZE)
    assert store.footprint("beta") == Footprint()
    store.delete_task("acme", "a")
    assert store.footprint("acme") == Footprint()


def test_deleting_a_version_frees_its_bytes(store: PrefixStore) -> None:
    put(store, "a", 0)
    put(store, "a", 1)
    store.delete_version("acme", "a", 1)
    assert store.footprint("acme") == Footprint(1, 1, SIZE)


def test_a_staged_file_takes_no_room(store: PrefixStore) -> None:
    store.stage("acme", prefix())
    assert store.footprint("acme") == Footprint()


def test_no_more_tasks_than_the_limit(store: PrefixStore) -> None:
    store.tenants.set("acme", max_tasks=2)
    put(store, "a")
    put(store, "b")
    for full in (lambda: put(store, "c"), lambda: store.compose("acme", "c", [("a", None)])):
        with pytest.raises(QuotaExceeded) as caught:
            full()
        assert (caught.value.code, caught.value.reason) == ("quota_exceeded", "max_tasks")
        assert "delete" in caught.value.message
    assert store.footprint("acme").tasks == 2
    put(store, "b", 1)
    put(store, "c", tenant="beta")
    store.delete_task("acme", "a")
    # Nothing of the refused task is left, not even a number.
    assert put(store, "c").version == 1


def test_no_more_bytes_than_the_limit(store: PrefixStore) -> None:
    store.tenants.set("acme", max_bytes=2 * SIZE)
    put(store, "a", 0)
    put(store, "b", 1)
    with pytest.raises(TenantFull) as caught:
        store.stage("acme", prefix(2))
    assert (caught.value.code, caught.value.reason) == ("storage_full", "max_bytes")
    assert "delete" in caught.value.message
    # What is there already needs no room.
    put(store, "c", 0)
    store.compose("acme", "d", [("a", None), ("b", None)])
    store.delete_task("acme", "d")
    store.delete_task("acme", "b")
    put(store, "b", 2)
    assert store.footprint("acme").bytes == 2 * SIZE


def test_the_transaction_decides_where_staging_saw_room(store: PrefixStore) -> None:
    staged = [store.stage("acme", prefix(content)) for content in range(3)]
    store.tenants.set("acme", max_bytes=2 * SIZE)
    for number in (0, 1):
        store.commit("acme", f"t{number}", staged[number])
    with pytest.raises(TenantFull):
        store.commit("acme", "t2", staged[2])
    with pytest.raises(TenantFull):
        store.commit("acme", "t0", staged[2])
    assert store.footprint("acme") == Footprint(2, 2, 2 * SIZE)
    assert [task.task_id for task in store.list_tasks("acme").items] == ["t0", "t1"]


def test_a_limit_below_what_is_there_forbids_growth_alone(store: PrefixStore) -> None:
    for number in range(3):
        put(store, f"t{number}", number)
    store.tenants.set("acme", max_tasks=1, max_bytes=1)
    put(store, "t0", 1)
    store.compose("acme", "t0", [("t1", None), ("t2", None)])
    store.activate("acme", "t0", 1)
    store.delete_version("acme", "t0", 2)
    with pytest.raises(QuotaExceeded):
        put(store, "t3", 0)
    with pytest.raises(TenantFull):
        put(store, "t0", 9)


def test_every_tenant_that_left_a_trace_is_listed(store: PrefixStore) -> None:
    put(store, "a", tenant="has-tasks")
    store.keys.create("has-keys", ["read"])
    store.tenants.set("has-limits", max_tasks=1, weight=3)
    store.usage.add([UsageEntry("has-usage", None, 1, 1, 1, 1)])
    assert store.tenants.list() == (
        KnownTenant("has-keys", TenantLimits(), Footprint()),
        KnownTenant("has-limits", TenantLimits(max_tasks=1, weight=3.0), Footprint()),
        KnownTenant("has-tasks", TenantLimits(), Footprint(1, 1, SIZE)),
        KnownTenant("has-usage", TenantLimits(), Footprint()),
    )
    assert store.tenants.get("has-tasks") == store.tenants.list()[2]
