"""Versions made of stored ones: their order, their sums, and what keeps their files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from prefixmux_store.errors import (
    BlobMissing,
    InvalidRequest,
    PreconditionFailed,
    StoreError,
    TaskNotFound,
    VersionNotFound,
)
from prefixmux_store.format import PrefixMeta, encode
from prefixmux_store.store import PrefixStore
from prefixmux_store.types import Defaults, Part, Version
from store.makers import HIDDEN, kv, prefix, tensor

TENANT = "default"


def put(store: PrefixStore, task_id: str, data: bytes, activate: bool = True) -> Version:
    return store.commit(TENANT, task_id, store.stage(TENANT, data), activate=activate)[0]


def compose(store: PrefixStore, task_id: str, *names: str) -> Version:
    return store.compose(TENANT, task_id, [(name, None) for name in names])[0]


def text(*token_ids: int) -> bytes:
    return encode({}, PrefixMeta(method="TEXT", token_ids=token_ids))


def infix(seed: int) -> bytes:
    return encode({"decoder": kv(2, seed)}, PrefixMeta(method="INFIX_TUNING"))


def test_an_upload_is_its_own_only_part(store: PrefixStore) -> None:
    version = put(store, "a", prefix())
    digest = version.digests[0]
    assert version.parts == (Part("a", 1, digest, 3, "PREFIX_TUNING"),)
    assert version.prefix_digest == digest
    assert version.defaults == Defaults()
    assert store.get_version(TENANT, "a", 1) == version


def test_a_composition_holds_its_parts_in_order_and_sums_them_up(store: PrefixStore) -> None:
    one = put(store, "one", prefix(1, tokens=3))
    data = encode(
        {"decoder": kv(5), "cross": kv(2)},
        PrefixMeta(position_offset={"decoder": 0}, provenance={"base_model": "tiny"}),
    )
    two = put(store, "two", data)
    words = put(store, "words", text(1, 2, 3, 4))
    both = compose(store, "both", "two", "words", "one", "two")
    assert both.digests == (two.digests[0], words.digests[0], one.digests[0], two.digests[0])
    assert both.method == "COMPOSITION"
    assert both.sites == {"cross": 4, "decoder": 13, "text": 4}
    assert both.position_offset == {"cross": 0, "decoder": 3, "text": 0}
    assert both.prefix_tokens == 5 + 4 + 3 + 5
    assert both.bytes == 2 * two.bytes + words.bytes + one.bytes
    assert both.base_model is None
    assert [(part.task_id, part.version, part.tokens) for part in both.parts] == [
        ("two", 1, 5),
        ("words", 1, 4),
        ("one", 1, 3),
        ("two", 1, 5),
    ]
    joined = "\n".join(both.digests).encode()
    assert both.prefix_digest == f"sha256:{hashlib.sha256(joined).hexdigest()}"
    assert store.resolve(TENANT, "both", None) == both
    assert compose(store, "named", "two", "two").base_model == "tiny"


def test_parts_are_resolved_when_they_are_composed(store: PrefixStore) -> None:
    put(store, "a", prefix(0))
    put(store, "a", prefix(1), activate=False)
    put(store, "b", prefix(2))
    both, _ = store.compose(TENANT, "both", [("a", None), ("a", 2), ("b", None)])
    assert [(part.task_id, part.version) for part in both.parts] == [("a", 1), ("a", 2), ("b", 1)]
    store.activate(TENANT, "a", 2)
    assert store.resolve(TENANT, "both", None) == both


def test_a_composed_part_stands_for_its_parts(store: PrefixStore) -> None:
    for seed, name in enumerate("abc"):
        put(store, name, prefix(seed))
    compose(store, "ab", "a", "b")
    found = compose(store, "cab", "c", "ab")
    assert [part.task_id for part in found.parts] == ["c", "a", "b"]
    assert found.prefix_tokens == 9


def test_one_part_alone_keeps_its_method_and_its_file(store: PrefixStore) -> None:
    embeddings = encode({"embeddings": tensor((4, HIDDEN))}, PrefixMeta(method="P_TUNING"))
    source = put(store, "a", embeddings)
    copy = compose(store, "copy", "a")
    assert (copy.method, copy.sites, copy.digests) == (
        "P_TUNING",
        {"embeddings": 4},
        source.digests,
    )
    assert copy.parts == source.parts
    assert store.read_file(TENANT, "copy", None) == embeddings


def test_a_composition_has_no_file_of_its_own(store: PrefixStore) -> None:
    put(store, "a", prefix(0))
    put(store, "b", prefix(1))
    compose(store, "both", "a", "b")
    with pytest.raises(InvalidRequest, match="fetch its parts, a version 1, b version 1"):
        store.read_file(TENANT, "both", None)


def test_files_stay_for_a_composition_whose_parts_are_gone(
    store: PrefixStore, folder: Path
) -> None:
    digests = {put(store, name, prefix(seed)).digests[0] for seed, name in enumerate("ab")}
    both = compose(store, "both", "a", "b")
    store.delete_task(TENANT, "a")
    store.delete_task(TENANT, "b")
    for digest in digests:
        store.discard(TENANT, digest)
    assert store.gc(-10).blobs == 0
    assert store.verify().checked == 2
    assert store.backup(folder / "copy").checked == 2
    with PrefixStore.open(folder / "copy") as copy:
        assert copy.resolve(TENANT, "both", None) == both
        assert copy.verify().ok
    again = compose(store, "again", "both")
    assert again.parts == both.parts
    store.delete_task(TENANT, "both")
    assert store.gc(-10).blobs == 0
    store.delete_task(TENANT, "again")
    assert store.gc(-10).blobs == 2


def test_the_same_prefixes_in_the_same_task_are_the_same_version(store: PrefixStore) -> None:
    put(store, "a", prefix(0))
    put(store, "b", prefix(1))
    first = compose(store, "t", "a", "b")
    other = compose(store, "t", "b", "a")
    assert (first.version, other.version) == (1, 2)
    again, created = store.compose(TENANT, "t", [("a", 1), ("b", 1)])
    assert (again, created) == (first, False)
    assert store.resolve(TENANT, "t", None) == first


def test_equal_content_of_other_tasks_is_another_version(store: PrefixStore) -> None:
    """Its parts name where it came from; of those of the first, one is gone."""
    for name in ("a", "b", "c"):
        put(store, name, prefix(0))
    first = compose(store, "t", "a", "b")
    store.delete_task(TENANT, "a")
    second, created = store.compose(TENANT, "t", [("c", None), ("b", None)])
    assert created
    assert [(part.task_id, part.version) for part in second.parts] == [("c", 1), ("b", 1)]
    assert second.digests == first.digests
    assert store.resolve(TENANT, "t", None) == second
    assert store.compose(TENANT, "t", [("c", 1), ("b", 1)]) == (second, False)
    assert store.compose(TENANT, "t", [("t", first.version)]) == (first, False)


def test_an_upload_and_a_composition_of_it_are_two_versions(store: PrefixStore) -> None:
    put(store, "a", prefix(0))
    named = compose(store, "t", "a")
    staged = store.stage(TENANT, prefix(0))
    uploaded, created = store.commit(TENANT, "t", staged)
    assert (created, uploaded.parts[0].task_id) == (True, "t")
    assert store.commit(TENANT, "t", staged) == (uploaded, False)
    assert store.compose(TENANT, "t", [("t", uploaded.version)]) == (uploaded, False)
    assert store.compose(TENANT, "t", [("a", None)]) == (named, False)


def test_defaults_belong_to_the_version_and_tell_it_apart(store: PrefixStore) -> None:
    staged = store.stage(TENANT, prefix())
    plain, _ = store.commit(TENANT, "t", staged)
    about = Defaults("Q: {input}\nA:", {"temperature": 0.5, "stop": ["\n"], "seed": None})
    dressed, created = store.commit(TENANT, "t", staged, defaults=about)
    assert (created, dressed.version, dressed.digests) == (True, 2, plain.digests)
    assert store.resolve(TENANT, "t", 2).defaults == about
    reordered = Defaults(about.template, dict(reversed(list(about.parameters.items()))))
    assert store.commit(TENANT, "t", staged, defaults=reordered) == (dressed, False)
    assert store.commit(TENANT, "t", staged) == (plain, False)
    made, _ = store.compose(TENANT, "c", [("t", 2)], defaults=Defaults("{input}!"))
    assert store.resolve(TENANT, "c", None).defaults == Defaults("{input}!") == made.defaults
    assert compose(store, "d", "t").defaults == Defaults()


@pytest.mark.parametrize(
    ("defaults", "param"),
    [
        (Defaults("no place for it"), "template"),
        (Defaults("{input"), "template"),
        (Defaults(""), "template"),
        (Defaults("{input}\ud800"), "template"),
        (Defaults("{input}" + "x" * 65536), "template"),
        (Defaults("{input}" * 17), "template"),
        (Defaults(parameters={"temperature": float("nan")}), "parameters"),
        (Defaults(parameters={"stop": ["\ud800"]}), "parameters"),
        (Defaults(parameters={"stop": ["x" * 20000]}), "parameters"),
        (Defaults(parameters={"stop": {1, 2}}), "parameters"),  # type: ignore[dict-item]
    ],
)
def test_defaults_that_cannot_be_kept(store: PrefixStore, defaults: Defaults, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        store.commit(TENANT, "t", store.stage(TENANT, prefix()), defaults=defaults)
    assert caught.value.param == param
    with pytest.raises(TaskNotFound):
        store.get_task(TENANT, "t")


def test_a_template_may_repeat_its_input_a_little(store: PrefixStore) -> None:
    staged = store.stage(TENANT, prefix())
    version, _ = store.commit(TENANT, "t", staged, defaults=Defaults("{input} " * 16))
    assert version.defaults.template == "{input} " * 16
    with pytest.raises(InvalidRequest, match="at most 16 times; this one does 17 times"):
        store.commit(TENANT, "t", staged, defaults=Defaults("{input} " * 17))


def test_what_cannot_be_composed(store: PrefixStore) -> None:
    put(store, "a", prefix(0))
    put(store, "quiet", prefix(0), activate=False)
    put(store, "i", infix(1))
    put(store, "j", infix(2))
    eight = [("a", None)] * 8
    store.compose(TENANT, "eight", eight)
    wrong: list[tuple[list[tuple[str, int | None]], type[StoreError], str]] = [
        ([], InvalidRequest, "compose"),
        ([("a", 1)] * 9, InvalidRequest, "compose"),
        ([("eight", None), ("a", None)], InvalidRequest, "compose"),
        ([("i", None), ("a", None), ("j", None)], InvalidRequest, "compose"),
        ([("i", None), ("i", None)], InvalidRequest, "compose"),
        ([("a", None), ("no", None)], TaskNotFound, "compose.1.task_id"),
        ([("../a", None)], TaskNotFound, "compose.0.task_id"),
        ([("a", 2)], VersionNotFound, "compose.0.version"),
        ([("a", 0)], VersionNotFound, "compose.0.version"),
        ([("quiet", None)], VersionNotFound, "compose.0.version"),
    ]
    for parts, error, param in wrong:
        with pytest.raises(error) as caught:
            store.compose(TENANT, "t", parts)
        assert caught.value.param == param
    with pytest.raises(TaskNotFound):
        store.get_task(TENANT, "t")
    assert compose(store, "t", "a", "i").method == "COMPOSITION"


def test_parts_of_another_tenant_do_not_exist(store: PrefixStore) -> None:
    put(store, "a", prefix())
    with pytest.raises(TaskNotFound):
        store.compose("other", "t", [("a", None)])


def test_create_only_and_activate_are_as_for_an_upload(store: PrefixStore) -> None:
    put(store, "a", prefix())
    store.compose(TENANT, "t", [("a", None)], activate=False, create_only=True)
    assert store.get_task(TENANT, "t").active is None
    with pytest.raises(PreconditionFailed):
        store.compose(TENANT, "t", [("a", None)], create_only=True)


def test_a_part_that_lost_its_file_is_not_composed(store: PrefixStore, folder: Path) -> None:
    digest = put(store, "a", prefix()).digests[0]
    (folder / "store" / "blobs" / TENANT / digest.removeprefix("sha256:")).unlink()
    with pytest.raises(BlobMissing):
        store.compose(TENANT, "t", [("a", None)])


def test_a_part_deleted_meanwhile_is_noticed(
    store: PrefixStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "a", prefix())
    look_up = store.resolve_parts

    def overtaken(tenant: str, parts: list[tuple[str, int | None]]) -> tuple[Version, ...]:
        found = look_up(tenant, parts)
        store.delete_task(TENANT, "a")
        store.gc(-10)
        return found

    monkeypatch.setattr(store, "resolve_parts", overtaken)
    with pytest.raises(TaskNotFound):
        store.compose(TENANT, "t", [("a", None)])
    assert store.list_tasks(TENANT).items == ()
