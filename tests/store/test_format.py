"""The native file: what is accepted, what is refused and why, and the way back to bytes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from prefixmux_store.content import of_file
from prefixmux_store.errors import InvalidPrefix, StoreError, UnsafeFormat
from prefixmux_store.format import BaseClaim, PrefixFile, PrefixMeta, RawTensor, encode, parse
from prefixmux_store.store import PrefixStore
from store.makers import box, described, entry, fast_folder, kv, prefix, raw, tensor
from store.zoo import Animal, animals

ZOO = list(animals())


@pytest.fixture(scope="module")
def kept() -> Iterator[tuple[Path, PrefixStore]]:
    """A store with one task in it."""
    with fast_folder() as folder, PrefixStore.open(folder / "store") as store:
        store.commit("default", "task", store.stage("default", prefix()))
        yield folder, store


def test_the_zoo_has_many_animals_with_names_of_their_own() -> None:
    assert len(ZOO) >= 400
    assert len({animal.name for animal in ZOO}) == len(ZOO)
    seen = {animal.reason for animal in ZOO}
    assert seen == {
        *(None, "truncated", "header", "offsets", "duplicate", "names", "dtype", "shape"),
        *("empty", "non_finite", "magnitude", "metadata"),
    }


@pytest.mark.parametrize("animal", ZOO, ids=lambda animal: animal.name)
def test_bad_files_are_refused_and_nothing_is_stored(
    animal: Animal, kept: tuple[Path, PrefixStore]
) -> None:
    folder, store = kept
    before = sorted(path for path in folder.rglob("*") if not path.name.endswith(("-wal", "-shm")))
    listing = store.list_tasks("default")
    with pytest.raises(StoreError) as caught:
        store.stage("default", animal.data)
    assert (caught.value.code, caught.value.reason) == (animal.code, animal.reason)
    after = sorted(path for path in folder.rglob("*") if not path.name.endswith(("-wal", "-shm")))
    assert after == before
    assert store.list_tasks("default") == listing


def test_refusals_say_nothing_of_the_file_but_the_rule() -> None:
    secret = "s3cret" * 10
    data = box({secret: entry([2], [0, 8])}, bytes(8))
    with pytest.raises(StoreError) as caught:
        parse(data)
    assert secret not in str(caught.value)
    assert caught.value.message == str(caught.value)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_round_trip_keeps_every_bit(dtype: str) -> None:
    tensors = {"decoder": kv(5, 1, dtype), "encoder": kv(2, 2, dtype), "cross": kv(7, 3, dtype)}
    meta = PrefixMeta(
        base=BaseClaim(architecture="Tiny", layers=2, fingerprint="sha256:" + "0" * 64),
        position_offset={"decoder": 0, "encoder": 0},
        provenance={"base_model": "tiny ✓", "loss": 0.25, "steps": 3, "note": None},
    )
    data = encode(tensors, meta)
    back = parse(data)
    assert back.meta == meta
    assert {name: (found.dtype, found.shape) for name, found in back.tensors.items()} == {
        name: (given.dtype, given.shape) for name, given in tensors.items()
    }
    assert all(back.tensors[name].data == tensors[name].data for name in tensors)
    assert encode(back.tensors, back.meta) == data
    assert (back.sites, back.tokens) == ({"cross": 7, "decoder": 5, "encoder": 2}, 7)
    assert back.nbytes == len(data)


def test_bytes_do_not_depend_on_the_order_things_are_given_in() -> None:
    one, two = kv(2, 1), kv(3, 2)
    meta = PrefixMeta(provenance={"a": 1, "b": 2})
    other = PrefixMeta(provenance={"b": 2, "a": 1})
    assert encode({"decoder": one, "cross": two}, meta) == encode(
        {"cross": two, "decoder": one}, other
    )


def test_encoded_bytes_are_those_of_the_safetensors_library() -> None:
    mixed = {"decoder": kv(3, 1, "F16"), "encoder": kv(1, 2, "F32"), "cross": kv(3, 3, "F16")}
    data = encode(mixed, PrefixMeta(provenance={"quote": 'a"b\\c'}))
    arrays = {
        name: np.frombuffer(part.data, {"F32": "<f4", "F16": "<f2"}[part.dtype]).reshape(part.shape)
        for name, part in mixed.items()
    }
    assert safetensors.numpy.save(arrays, {"prefixmux": _metadata_of(data)}) == data


def _metadata_of(data: bytes) -> str:
    size = int.from_bytes(data[:8], "little")
    return str(json.loads(data[8 : 8 + size])["__metadata__"]["prefixmux"])


def test_offsets_default_to_the_length_at_the_decoder_only() -> None:
    three = {"decoder": kv(5), "encoder": kv(2), "cross": kv(4)}
    plain = parse(encode(three, PrefixMeta()))
    assert [plain.offset(site) for site in ("decoder", "encoder", "cross")] == [5, 0, 0]
    assert parse(encode({"encoder": kv(2)}, PrefixMeta())).offset("decoder") == 0
    unshifted = parse(encode(three, PrefixMeta(position_offset={"decoder": 0})))
    assert [unshifted.offset(site) for site in ("decoder", "encoder", "cross")] == [0, 0, 0]


def test_a_site_without_a_tensor_may_be_said_not_to_shift() -> None:
    about = PrefixMeta(position_offset={"decoder": 0, "encoder": 0, "cross": 0})
    words = replace(about, method="TEXT", token_ids=(1, 2, 3))
    for data, sites in (
        (encode({"encoder": kv(2)}, about), {"encoder": 2}),
        (encode({"decoder": kv(4), "cross": kv(1)}, about), {"cross": 1, "decoder": 4}),
        (encode({}, words), {"text": 3}),
    ):
        found = parse(data)
        assert found.sites == sites
        assert found.meta.position_offset == about.position_offset
        assert of_file(found).position_offset == dict.fromkeys(sites, 0)
        assert encode(found.tensors, found.meta) == data


def test_an_infix_of_embeddings_shifts_by_its_length_whatever_is_said() -> None:
    tensors = {"decoder": kv(4), "embeddings": tensor((4, 12))}
    about = PrefixMeta(method="INFIX_EMBEDDING")
    for said in (None, {"decoder": 4}, {"decoder": 4, "encoder": 0}):
        found = parse(encode(tensors, replace(about, position_offset=said)))
        assert of_file(found).position_offset == {"decoder": 4, "embeddings": 0}
    for wrong in ({"decoder": 0}, {}, {"encoder": 0}):
        with pytest.raises(InvalidPrefix, match="stand at positions of their own") as caught:
            encode(tensors, replace(about, position_offset=wrong))
        assert caught.value.reason == "metadata"


def test_files_that_say_nothing_about_themselves_are_prefix_tuning() -> None:
    bare = safetensors.numpy.save({"decoder": np.zeros((2, 2, 3, 2, 4), "<f4")})
    foreign = safetensors.numpy.save(
        {"decoder": np.zeros((2, 2, 3, 2, 4), "<f4")}, {"format": "pt"}
    )
    assert parse(bare).meta == parse(foreign).meta == PrefixMeta()


def test_embedding_methods_hold_embeddings() -> None:
    found = parse(encode({"embeddings": tensor((6, 12))}, PrefixMeta(method="P_TUNING")))
    assert (found.sites, found.tokens) == ({"embeddings": 6}, 6)


def test_a_text_is_its_token_ids() -> None:
    about = PrefixMeta(method="TEXT", token_ids=(5, 0, 96), text="Übersetze:\n")
    data = encode({}, about)
    found = parse(data)
    assert (found.meta, found.sites, found.tokens) == (about, {"text": 3}, 3)
    assert (found.offset("decoder"), found.offset("text")) == (0, 0)
    assert encode(found.tensors, found.meta) == data
    assert safetensors.deserialize(data) == []  # type: ignore[no-untyped-call]
    assert parse(encode({}, PrefixMeta(method="TEXT", token_ids=(1,)))).meta.text is None


def test_a_text_may_fill_the_header_and_no_more() -> None:
    long = PrefixMeta(method="TEXT", token_ids=(12345,) * 10_000)
    assert parse(encode({}, long)).tokens == 10_000
    for about in (
        PrefixMeta(method="TEXT", token_ids=(12345,) * 11_000),
        PrefixMeta(method="TEXT", token_ids=(1,), text="é" * 10_000),
    ):
        with pytest.raises(InvalidPrefix) as caught:
            encode({}, about)
        assert caught.value.reason == "too_long"


@pytest.mark.parametrize(
    "about",
    [
        PrefixMeta(method="TEXT"),
        PrefixMeta(method="TEXT", token_ids=()),
        PrefixMeta(method="TEXT", token_ids=(-1,)),
        PrefixMeta(token_ids=(1,)),
        PrefixMeta(text=""),
    ],
)
def test_token_ids_and_text_belong_to_texts(about: PrefixMeta) -> None:
    with pytest.raises(InvalidPrefix) as caught:
        encode({} if about.method == "TEXT" else {"decoder": kv()}, about)
    assert caught.value.reason == "metadata"


def test_strange_but_finite_values_are_fine() -> None:
    values = np.array([0.0, -0.0, 1e-45, -1e-40, 1e4, -1e4, 500.0, 6e-8] * 12, "<f4")
    data = box({"decoder": entry([2, 2, 3, 2, 4], [0, 384])}, values.tobytes())
    assert parse(data).tokens == 3


@pytest.mark.parametrize("place", [0, 1_200_000, -1])
def test_large_tensors_are_checked_to_their_ends(place: int) -> None:
    """Longer than what is looked at in one piece."""
    shape = (4, 2, 600, 8, 64)
    values = np.ones(shape, "<f4")
    values.reshape(-1)[place] = np.nan
    data = box({"decoder": entry(list(shape), [0, values.nbytes])}, values.tobytes())
    with pytest.raises(InvalidPrefix) as caught:
        parse(data)
    assert caught.value.reason == "non_finite"


def test_a_header_that_begins_like_a_pickle_is_no_pickle() -> None:
    """640 as a length is the two bytes that a pickle of protocol 2 begins with."""
    text = box({"decoder": entry([2, 2, 3, 2, 4], [0, 384])})[8:]
    data = raw(text.ljust(640), bytes(384))
    assert data[:2] == b"\x80\x02"
    assert parse(data).tokens == 3


def test_the_largest_header_is_accepted_and_one_byte_more_is_not() -> None:
    text = box({"decoder": entry([2, 2, 3, 2, 4], [0, 384])})[8:]
    assert parse(raw(text.ljust(65536), bytes(384))).tokens == 3
    with pytest.raises(InvalidPrefix) as caught:
        parse(raw(text.ljust(65537), bytes(384)))
    assert caught.value.reason == "header"


def test_metadata_of_exactly_the_limit_is_accepted() -> None:
    key = "k" * 96
    data = box({"decoder": entry([2, 2, 3, 2, 4], [0, 384])}, bytes(384), {key: "v" * 4000})
    assert parse(data).tokens == 3


def test_encode_never_makes_what_parse_refuses() -> None:
    bad = RawTensor("F32", (1, 2, 1, 1, 1), memoryview(np.full(2, np.nan, "<f4").tobytes()))
    with pytest.raises(InvalidPrefix, match="NaN"):
        encode({"decoder": bad}, PrefixMeta())
    for value in ("x" * 5000, float("nan"), float("-inf"), "\ud800"):
        with pytest.raises(InvalidPrefix) as caught:
            encode({"decoder": kv()}, PrefixMeta(provenance={"note": value}))
        assert caught.value.reason == "metadata"


def agrees_with_safetensors(data: bytes) -> PrefixFile | None:
    """Parses; what is accepted has to be accepted by the library, with the same content."""
    try:
        found = parse(data)
    except (InvalidPrefix, UnsafeFormat):
        return None
    library = dict(safetensors.deserialize(data))  # type: ignore[no-untyped-call]
    assert library.keys() == found.tensors.keys()
    for name, part in found.tensors.items():
        assert bytes(library[name]["data"]) == bytes(part.data)
        assert tuple(library[name]["shape"]) == part.shape
        assert library[name]["dtype"] == part.dtype
    canonical = encode(found.tensors, found.meta)
    again = parse(canonical)
    assert (again.tensors, again.meta) == (found.tensors, found.meta)
    assert encode(again.tensors, again.meta) == canonical
    return found


def seeds() -> list[bytes]:
    about = PrefixMeta(base=BaseClaim(layers=2, hidden=12), position_offset={"decoder": 0})
    three = {"decoder": kv(1), "encoder": kv(2, 1, "F16"), "cross": kv(1, 2, "BF16")}
    words = encode({}, PrefixMeta(method="TEXT", token_ids=(1, 2, 3), text="x y z"))
    cartridge = described('{"format":1,"method":"CARTRIDGE"}')
    return [prefix(tokens=1), encode(three, about), cartridge, words]


def mutate(data: bytes, draw: random.Random) -> bytes:
    """A few edits, most of them in the header, where the rules are."""
    changed = bytearray(data)
    end = 8 + int.from_bytes(data[:8], "little")
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        at = draw.randrange(min(end, len(changed)) if draw.random() < 0.9 else len(changed))
        match draw.randrange(6):
            case 0:
                changed[at] ^= 1 << draw.randrange(8)
            case 1:
                changed[at] = draw.choice(b'0123456789-+.eE,:[]{}"\\ \n\t\x00\xffuntrF36')
            case 2:
                del changed[at : at + draw.randrange(1, 9)]
            case 3:
                changed[at:at] = draw.choice(
                    (b"0", b"-", b" ", b"9" * 20, b"1e3", b'"', b"[", b"\\u0041")
                )
            case 4:
                # A copy of another piece keeps the text plausible: duplicate keys, swapped sizes.
                source = draw.randrange(end)
                changed[at:at] = changed[source : source + draw.randrange(1, 40)]
            case _:
                changed = changed[: draw.randrange(len(changed))] or bytearray(b"\0")
        if not changed:
            return b""
        if draw.random() < 0.5 and len(changed) >= 8:
            # Keep the length right, so that the edit reaches the rules behind it.
            grown = end + len(changed) - len(data)
            changed[:8] = max(grown - 8, 0).to_bytes(8, "little")
    return bytes(changed)


def mutations(seed: int, count: int) -> int:
    """How many of the mutated files were accepted."""
    draw = random.Random(seed)
    originals = seeds()
    accepted = 0
    for _ in range(count):
        accepted += agrees_with_safetensors(mutate(draw.choice(originals), draw)) is not None
    return accepted


def test_mutated_files_are_refused_or_agree_with_the_library() -> None:
    assert mutations(seed=20260, count=40_000) > 100


@pytest.mark.long
def test_many_mutated_files_are_refused_or_agree_with_the_library() -> None:
    assert mutations(seed=1, count=5_000_000) > 10_000


NUMBERS = st.one_of(
    st.integers(-2, 8), st.integers(), st.floats(), st.booleans(), st.none(), st.just(384)
)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "I8", "f32"]),
        "shape": st.one_of(st.just([2, 2, 3, 2, 4]), st.lists(NUMBERS, max_size=6)),
        "data_offsets": st.one_of(st.just([0, 384]), st.lists(NUMBERS, max_size=3)),
    },
    optional={"stride": NUMBERS},
)


@settings(max_examples=300, deadline=None)
@given(
    tensors=st.dictionaries(
        st.sampled_from(["decoder", "encoder", "cross", "embeddings", "x", ""]), ENTRIES, max_size=3
    ),
    metadata=st.one_of(
        st.none(), st.dictionaries(st.text(max_size=8), st.text(max_size=20), max_size=2)
    ),
    body=st.sampled_from([0, 192, 384, 768, 769]),
)
def test_invented_headers_are_refused_or_agree_with_the_library(
    tensors: dict[str, object], metadata: object, body: int
) -> None:
    agrees_with_safetensors(box(tensors, bytes(body), metadata))


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=200))
def test_noise_is_refused(data: bytes) -> None:
    assert agrees_with_safetensors(data) is None
