"""The size that a stored file's tensors will have in memory, told by its header."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from prefixmux_store.blobs import BlobStore
from prefixmux_store.container import MAX_HEADER_BYTES
from prefixmux_store.errors import BlobCorrupt, BlobMissing, InvalidTenant, StorageFailed
from prefixmux_store.files import OsFiles
from prefixmux_store.format import PrefixMeta, encode
from prefixmux_store.names import digest_of
from prefixmux_store.tensors import RawTensor
from store.faulty import FaultyFiles
from store.makers import HEADS, HIDDEN, LAYERS, WIDTH, box, entry, kv, prefix, raw, tensor
from store.zoo import animals

DIGEST = digest_of(b"")
PER_TOKEN = LAYERS * 2 * HEADS * WIDTH


class Watching(OsFiles):
    """How much was asked for, in order."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def read(self, path: Path) -> bytes:
        raise AssertionError("the whole file was read")

    def read_start(self, path: Path, size: int) -> bytes:
        self.sizes.append(size)
        return super().read_start(path, size)


def planted(folder: Path, data: bytes) -> Path:
    """Bytes under a name that they do not have to have."""
    path = folder / "blobs" / "default" / DIGEST.removeprefix("sha256:")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("item_bytes", [1, 2, 4, 8])
def test_the_size_is_exact_whatever_the_file_holds(
    folder: Path, dtype: str, item_bytes: int
) -> None:
    blobs = BlobStore(folder, OsFiles())
    mixed = {"decoder": kv(5, 1, dtype), "embeddings": tensor((5, HIDDEN), 2, "F32")}
    sites = {name: kv(4, 1, dtype) for name in ("decoder", "cross", "encoder")}
    for values, data in (
        (7 * PER_TOKEN, prefix(tokens=7, dtype=dtype)),
        (5 * (PER_TOKEN + HIDDEN), encode(mixed, PrefixMeta(method="INFIX_EMBEDDING"))),
        (3 * 4 * PER_TOKEN, encode(sites, PrefixMeta(provenance={"note": "x" * 1000}))),
    ):
        digest = blobs.write("default", data)
        assert blobs.resident_bytes("default", digest, item_bytes) == values * item_bytes


def test_only_the_header_is_read(folder: Path) -> None:
    files = Watching()
    data = prefix(tokens=64)
    digest = BlobStore(folder, files).write("default", data)
    BlobStore(folder, files).resident_bytes("default", digest, 2)
    assert files.sizes == [8, 8 + int.from_bytes(data[:8], "little")]


def test_a_file_larger_than_memory_is_measured(folder: Path) -> None:
    tokens = 2**34 // PER_TOKEN
    shape = [LAYERS, 2, tokens, HEADS, WIDTH]
    path = planted(folder, data := box({"decoder": entry(shape, [0, 2**36])}))
    os.truncate(path, len(data) + 2**36)
    assert BlobStore(folder, OsFiles()).resident_bytes("default", DIGEST, 2) == 2**35


def test_a_header_beyond_the_limit_is_not_read(folder: Path) -> None:
    for size in (0, 1, MAX_HEADER_BYTES + 1, 2**63, 2**64 - 1):
        planted(folder, size.to_bytes(8, "little") + bytes(MAX_HEADER_BYTES + 16))
        files = Watching()
        with pytest.raises(BlobCorrupt):
            BlobStore(folder, files).resident_bytes("default", DIGEST, 2)
        assert files.sizes == [8]


def test_a_cut_or_grown_file_is_damaged(folder: Path) -> None:
    blobs = BlobStore(folder, OsFiles())
    good = prefix()
    for data in (*(good[:size] for size in range(len(good))), good + b"\0", raw(b"{}")):
        planted(folder, data)
        with pytest.raises(BlobCorrupt) as caught:
            blobs.resident_bytes("default", DIGEST, 2)
        assert caught.value.code == "prefix_unavailable"


def test_no_bytes_at_all_announce_more_than_they_hold(folder: Path) -> None:
    blobs = BlobStore(folder, OsFiles())
    refused = 0
    for animal in animals():
        planted(folder, animal.data)
        try:
            assert 0 < blobs.resident_bytes("default", DIGEST, 2) <= len(animal.data)
        except BlobCorrupt:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "nothing"])
def test_only_plain_files_are_measured(folder: Path, kind: str) -> None:
    path = planted(folder, prefix())
    elsewhere = path.rename(folder / "elsewhere")
    if kind == "link":
        path.symlink_to(elsewhere)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(BlobMissing):
        BlobStore(folder, OsFiles()).resident_bytes("default", DIGEST, 2)


def test_names_that_cannot_exist_are_not_measured(folder: Path) -> None:
    blobs = BlobStore(folder, OsFiles())
    with pytest.raises(BlobMissing):
        blobs.resident_bytes("default", "sha256:../x", 2)
    with pytest.raises(InvalidTenant):
        blobs.resident_bytes("../x", DIGEST, 2)


def test_every_call_to_the_disk_may_fail(folder: Path) -> None:
    planted(folder, prefix())
    for at in (1, 2, 3):
        with pytest.raises(StorageFailed):
            BlobStore(folder, FaultyFiles("EIO", at)).resident_bytes("default", DIGEST, 2)
    assert BlobStore(folder, FaultyFiles("EIO", 4)).resident_bytes("default", DIGEST, 2)


@pytest.mark.parametrize("tokens", [1, 7])
def test_virtual_tokens_that_become_keys_and_values_are_counted_as_such(
    folder: Path, tokens: int
) -> None:
    blobs = BlobStore(folder, OsFiles())
    text = encode({}, PrefixMeta(method="TEXT", token_ids=tuple(range(tokens))))
    planted(folder, text)
    assert blobs.resident_bytes("default", DIGEST, 2, token_bytes=100) == tokens * 100
    assert blobs.resident_bytes("default", DIGEST, 2) == tokens * 2
    embeddings = RawTensor("F32", (tokens, 4), memoryview(bytes(tokens * 16)))
    planted(folder, encode({"embeddings": embeddings}, PrefixMeta(method="P_TUNING")))
    assert blobs.resident_bytes("default", DIGEST, 2, token_bytes=100) == tokens * 100
    assert blobs.resident_bytes("default", DIGEST, 2) == tokens * 8


def test_keys_and_values_are_what_they_are(folder: Path) -> None:
    blobs = BlobStore(folder, OsFiles())
    planted(folder, prefix())
    measured = blobs.resident_bytes("default", DIGEST, 2)
    assert blobs.resident_bytes("default", DIGEST, 2, token_bytes=100) == measured
