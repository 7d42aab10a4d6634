"""The safetensors container, read by rules stricter than the library's.

Knows names, dtypes, shapes and offsets; knows nothing of prefixes, models or the meaning of the
metadata. Nothing is allocated by a size that the file claims: tensors are views of the bytes, and
their sizes are computed in unbounded integers and compared before any view is made.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from prefixmux_store import strict_json
from prefixmux_store.errors import InvalidPrefix, UnsafeFormat
from prefixmux_store.tensors import ITEM_BYTES, DType, RawTensor

MAX_HEADER_BYTES = 64 * 1024
# Beside tensors, metadata is a label; without any it is the content and may fill the header.
MAX_METADATA_BYTES = 4 * 1024
MAX_DIMENSIONS = 5

LENGTH_BYTES = 8
_MAGIC: Mapping[bytes, str] = {
    b"PK\x03\x04": "zip archives",
    b"PK\x05\x06": "zip archives",
    b"PK\x07\x08": "zip archives",
    b"GGUF": "GGUF files",
    b"\x93NUMPY": "numpy files",
}
_TENSOR_FIELDS = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True)
class Container:
    """Tensors in file order; `metadata` is empty when the file has none."""

    tensors: Mapping[str, RawTensor]
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class Outline:
    """What a file holds, as its header announces it; its tensors' names are not checked."""

    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]

    @property
    def values(self) -> int:
        """How many numbers the tensors hold together."""
        return sum(map(math.prod, self.shapes.values()))


@dataclass(frozen=True)
class _Place:
    """A tensor as its header announces it; `begin` and `end` are places in the file."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    begin: int
    end: int


def read(data: bytes, allowed: frozenset[str] | None, *, may_be_bare: bool = False) -> Container:
    """Checks everything but the tensors' values; `allowed` are the tensor names that may occur,
    None: any.

    Raises `UnsafeFormat` or `InvalidPrefix`. A file without tensors is `empty`, unless it may be
    bare and has metadata.
    """
    refuse_unsafe(data)
    header, start = _header(data)
    metadata = header.pop("__metadata__", {})
    if not header and not (may_be_bare and metadata):
        raise InvalidPrefix("empty", "The file holds no tensors.")
    if allowed is not None and not header.keys() <= allowed:
        names = ", ".join(sorted(allowed))
        raise InvalidPrefix("names", f"The file may hold only these tensors: {names}.")
    tensors: dict[str, RawTensor] = {}
    for place in _places(header, start, len(data)):
        view = memoryview(data)[place.begin : place.end]
        tensors[place.name] = RawTensor(place.dtype, place.shape, view)
    return Container(tensors, _metadata(metadata, MAX_METADATA_BYTES if tensors else len(data)))


def head_bytes(data: bytes) -> int:
    """Size of the header and of its length, which are the file's first bytes: never more than
    8 + `MAX_HEADER_BYTES`. Looks at the first `LENGTH_BYTES` only. Raises `InvalidPrefix`."""
    if len(data) < LENGTH_BYTES:
        raise InvalidPrefix("truncated", "The file ends before its header.")
    size = int.from_bytes(data[:LENGTH_BYTES], "little")
    if not 2 <= size <= MAX_HEADER_BYTES:
        message = f"The file is not safetensors, or its header exceeds {MAX_HEADER_BYTES} bytes."
        raise InvalidPrefix("header", message)
    return LENGTH_BYTES + size


def outline(head: bytes, file_bytes: int) -> Outline:
    """Of a file of this size; `head` are its first `head_bytes`. Raises `InvalidPrefix`, also
    when the tensors do not fill the file."""
    header, start = _header(head)
    metadata = _metadata(header.pop("__metadata__", {}), MAX_HEADER_BYTES)
    return Outline({p.name: p.shape for p in _places(header, start, file_bytes)}, metadata)


def write(tensors: Mapping[str, RawTensor], metadata: Mapping[str, str]) -> bytes:
    """The bytes that the safetensors library writes for the same content."""
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    position = 0
    ordered = sorted(tensors.items(), key=lambda item: (_rank(item[1].dtype), item[0]))
    for name, tensor in ordered:
        offsets = [position, position + tensor.nbytes]
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": offsets}
        position += tensor.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % LENGTH_BYTES)
    parts = [len(text).to_bytes(LENGTH_BYTES, "little"), text]
    return b"".join([*parts, *(tensor.data for _, tensor in ordered)])


def refuse_unsafe(data: bytes) -> None:
    """Raises `UnsafeFormat` for pickle, zip (which PyTorch's files are), GGUF and npy."""
    for magic, what in _MAGIC.items():
        if data.startswith(magic):
            raise UnsafeFormat(f"The file is not safetensors: {what} are refused.")
    if _is_pickle(data):
        raise UnsafeFormat("The file is a pickle, which can run code: save it as safetensors.")


def _is_pickle(data: bytes) -> bool:
    # A header of 640 bytes begins 80 02 too, as a pickle of protocol 2 does; the byte after the
    # length tells them apart.
    if data[3:9] == b"\0\0\0\0\0{":
        return False
    if data[:1] == b"\x80":
        return data[1:2] in {b"\1", b"\2", b"\3", b"\4", b"\5"}
    # Protocols 0 and 1 have no magic: a container, a mark or a global first, a full stop last.
    return data[:1] in {b"(", b"c", b"]", b"}"} and data[-1:] == b"."


def _rank(dtype: str) -> int:
    return ["F32", "BF16", "F16"].index(dtype)


def _header(data: bytes) -> tuple[dict[str, object], int]:
    start = head_bytes(data)
    if start > len(data):
        raise InvalidPrefix("truncated", "The file ends within its header.")
    try:
        header = strict_json.loads(data[LENGTH_BYTES:start])
    except strict_json.DuplicateKeyError:
        raise InvalidPrefix("duplicate", "The header names a key twice.") from None
    except ValueError:
        raise InvalidPrefix("header", "The header is not valid JSON.") from None
    if not isinstance(header, dict) or data[LENGTH_BYTES] != ord("{"):
        raise InvalidPrefix("header", "The header is not a JSON object.")
    return header, start


def _places(header: Mapping[str, object], start: int, file_bytes: int) -> Iterator[_Place]:
    """Each tensor of a header without metadata; `start` is where the data section begins."""
    position = start
    for name, entry in header.items():
        place = _place(name, entry, start, position)
        if place.end > file_bytes:
            raise InvalidPrefix("truncated", f"The file ends within tensor {name}.")
        yield place
        position = place.end
    if position < file_bytes:
        raise InvalidPrefix("offsets", "The file goes on after its last tensor.")


def _place(name: str, entry: object, start: int, position: int) -> _Place:
    """`start` is where the data section begins, `position` where this tensor has to."""
    if not isinstance(entry, dict) or entry.keys() != _TENSOR_FIELDS:
        message = f"Tensor {name} needs exactly dtype, shape and data_offsets."
        raise InvalidPrefix("header", message)
    dtype = entry["dtype"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise InvalidPrefix("dtype", f"Tensor {name} has a dtype other than F32, F16 and BF16.")
    shape = _shape(name, entry["shape"])
    size = math.prod(shape) * ITEM_BYTES[dtype]
    begin = position - start
    if not _integers(entry["data_offsets"]) or entry["data_offsets"] != [begin, begin + size]:
        message = f"Tensor {name} does not lie where its shape and its predecessors put it."
        raise InvalidPrefix("offsets", message)
    return _Place(name, cast(DType, dtype), shape, position, position + size)


def _shape(name: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_DIMENSIONS:
        raise InvalidPrefix("shape", f"Tensor {name} has no shape of 1 to {MAX_DIMENSIONS} sizes.")
    if not _integers(value) or min(value) < 0:
        raise InvalidPrefix("shape", f"Tensor {name} has a size that is no natural number.")
    if 0 in value:
        raise InvalidPrefix("empty", f"Tensor {name} holds no values.")
    return tuple(value)


def _integers(value: object) -> bool:
    # bool is an int to isinstance, and true is no size.
    return isinstance(value, list) and all(type(item) is int for item in value)


def _metadata(value: object, limit: int) -> Mapping[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise InvalidPrefix("metadata", "__metadata__ has to map strings to strings.")
    if sum(len(key.encode()) + len(text.encode()) for key, text in value.items()) > limit:
        raise InvalidPrefix("metadata", f"__metadata__ exceeds {limit} bytes.")
    return value
