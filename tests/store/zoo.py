"""The zoo of bad files: every way in which a native file can be wrong, as data.

Each animal is a name, the bytes, and the code and reason that have to come back.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from prefixmux_store.errors import Reason
from store.makers import box, described, entry, kv, prefix, raw

SHAPE = [2, 2, 3, 2, 4]
SIZE = 384
GOOD = entry(SHAPE, [0, SIZE])
BODY = bytes(SIZE)


@dataclass(frozen=True)
class Animal:
    name: str
    data: bytes
    reason: Reason | None
    code: str = "invalid_prefix"


def animals() -> Iterator[Animal]:
    yield from unsafe()
    yield from truncated()
    yield from headers()
    yield from duplicates()
    yield from names()
    yield from dtypes()
    yield from shapes()
    yield from offsets()
    yield from metadata()
    yield from values()


def unsafe() -> Iterator[Animal]:
    def animal(name: str, data: bytes) -> Animal:
        return Animal(f"unsafe: {name}", data, None, "unsafe_format")

    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield animal(f"pickle {protocol}", pickle.dumps({"decoder": [1.0]}, protocol))
    yield animal("pickle that would run", b"cos\nsystem\n(S'true'\ntR.")
    yield animal("pickle of a list", pickle.dumps([1, 2], 0))
    # PyTorch before 1.6: a pickled magic number, then a pickled protocol version.
    yield animal("legacy torch", pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr("archive/data.pkl", pickle.dumps({}))
    yield animal("torch zip", archive.getvalue())
    yield animal("zip before safetensors", archive.getvalue() + prefix())
    yield animal("empty zip", b"PK\x05\x06" + bytes(18))
    yield animal("spanned zip", b"PK\x07\x08" + bytes(18))
    array = io.BytesIO()
    np.save(array, np.zeros(4))
    yield animal("npy", array.getvalue())
    arrays = io.BytesIO()
    np.savez(arrays, decoder=np.zeros(4))
    yield animal("npz", arrays.getvalue())
    yield animal("gguf", b"GGUF" + struct.pack("<IQQ", 3, 0, 0))


def truncated() -> Iterator[Animal]:
    whole = prefix()
    header = int.from_bytes(whole[:8], "little")
    for size in range(8):
        yield Animal(f"truncated: {size} bytes", whole[:size], "truncated")
    for size in range(8, 8 + header, 16):
        yield Animal(f"truncated: header at {size}", whole[:size], "truncated")
    for size in range(8 + header, len(whole), 24):
        yield Animal(f"truncated: body at {size}", whole[:size], "truncated")
    yield Animal("truncated: the last byte", whole[:-1], "truncated")
    yield Animal("truncated: length beyond the file", b"\x00\x10" + bytes(6) + b"{}", "truncated")
    two = {"decoder": GOOD, "encoder": entry(SHAPE, [SIZE, 2 * SIZE])}
    yield Animal("truncated: second tensor", box(two, BODY), "truncated")


def headers() -> Iterator[Animal]:
    for length in (0, 1, 65537, 10**8, 2**31, 2**32, 2**63, 2**64 - 1):
        data = length.to_bytes(8, "little") + b"{}" + BODY
        yield Animal(f"header: length {length}", data, "header")
    good = json.dumps({"decoder": GOOD})
    texts = {
        "not UTF-8": b'{"decoder\xff": 1}',
        "UTF-16": good.encode("utf-16"),
        "byte order mark": b"\xef\xbb\xbf" + good.encode(),
        "no JSON": b"hello, world",
        "cut JSON": good[:-1].encode(),
        "text after it": good.encode() + b"x",
        "two objects": good.encode() * 2,
        "array": b"[" + good.encode() + b"]",
        "string": b'"decoder"',
        "number": b"12",
        "null": b"null",
        "blanks": b"        ",
        "leading blank": b" " + good.encode(),
        "leading newline": b"\n" + good.encode(),
        "trailing NUL": good.encode() + b"\0",
        "trailing comma": good[:-1].encode() + b",}",
        "single quotes": good.replace('"', "'").encode(),
        "comment": good.encode() + b"/* */",
        "NaN": good.replace("384", "NaN").encode(),
        "Infinity": good.replace("384", "Infinity").encode(),
        "-Infinity": good.replace("384", "-Infinity").encode(),
        "float beyond all": good.replace("384", "1e999").encode(),
        "integer of 5000 digits": good.replace("384", "9" * 5000).encode(),
        "minus zero": good.replace("[0, 384]", "[-0, 384]").encode(),
        "leading zero": good.replace("[0, 384]", "[00, 384]").encode(),
        "plus sign": good.replace("[0, 384]", "[+0, 384]").encode(),
        "hexadecimal": good.replace("384", "0x180").encode(),
        "control character in a name": b'{"deco\x01der": 1}',
        "lone surrogate in a name": b'{"\\ud800": 1}',
        "bad escape": b'{"\\x41": 1}',
        "deep arrays": b'{"a":' + b"[" * 30000 + b"]" * 30000 + b"}",
        "deep objects": b'{"a":' * 10000 + b"1" + b"}" * 10000,
        "unclosed depth": b'{"a":' + b"[" * 60000,
    }
    for name, text in texts.items():
        yield Animal(f"header: {name}", raw(text, BODY), "header")
    foreign = {
        "ELF": b"\x7fELF" + bytes(60),
        "HTML": b"<!DOCTYPE html><html></html>",
        "gzip": b"\x1f\x8b\x08" + bytes(40),
        "PNG": b"\x89PNG\r\n\x1a\n" + bytes(40),
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(40),
        "text": b"some notes on prefixes",
        "0xff": b"\xff" * 64,
        "zeros": bytes(64),
        "tar": _tar(),
    }
    for name, data in foreign.items():
        yield Animal(f"header: {name}", data, "header")
    entries: dict[str, object] = {
        "null": None,
        "array": [],
        "string": "F32",
        "number": 1,
        "nothing": {},
        "no dtype": {"shape": SHAPE, "data_offsets": [0, SIZE]},
        "no shape": {"dtype": "F32", "data_offsets": [0, SIZE]},
        "no offsets": {"dtype": "F32", "shape": SHAPE},
        "extra field": {**GOOD, "stride": 1},
        "offsets by another name": {"dtype": "F32", "shape": SHAPE, "offsets": [0, SIZE]},
        "prototype": {**GOOD, "__proto__": {}},
    }
    for name, value in entries.items():
        yield Animal(f"header: entry {name}", box({"decoder": value}, BODY), "header")


def _tar() -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as writer:
        member = tarfile.TarInfo("../../etc/passwd")
        member.size = 1
        writer.addfile(member, io.BytesIO(b"x"))
    return archive.getvalue()


def duplicates() -> Iterator[Animal]:
    one = json.dumps(GOOD)
    meta = json.dumps({"prefixmux": json.dumps({"format": 1, "method": "PREFIX_TUNING"})})
    texts = {
        "tensor": f'{{"decoder":{one},"decoder":{one}}}',
        "tensor, escaped": f'{{"decoder":{one},"\\u0064ecoder":{one}}}',
        "metadata": f'{{"__metadata__":{meta},"__metadata__":{meta},"decoder":{one}}}',
        "field": f'{{"decoder":{one[:-1]},"dtype":"F32"}}}}',
        "metadata key": f'{{"__metadata__":{meta[:-1]},"prefixmux":"x"}},"decoder":{one}}}',
    }
    for name, text in texts.items():
        yield Animal(f"duplicate: {name}", raw(text.encode(), BODY), "duplicate")
    descriptions = {
        "format": '{"format":1,"format":1,"method":"PREFIX_TUNING"}',
        "method": '{"format":1,"method":"TEXT","method":"PREFIX_TUNING"}',
        "base": '{"format":1,"method":"PREFIX_TUNING","base":{"layers":2,"layers":3}}',
    }
    for name, text in descriptions.items():
        yield Animal(f"duplicate: described {name}", described(text), "duplicate")


def names() -> Iterator[Animal]:
    strange = (
        *("", "Decoder", "DECODER", "decoder ", " decoder", "decoder.0", "decoders", "../x"),
        *(
            "/etc/passwd",
            "..",
            ".",
            "a/../b",
            "%2e%2e",
            "decoder\0",
            "\u202edecoder",
            "deco\u200bder",
        ),
        *("prompt_embeddings", "base_model.prompt_embeddings", "x" * 10240, "__proto__", "métier"),
        *("cross_attention", "prefix", "__metadata", "wte.weight", "control_trans", "𝖽𝖾𝖼𝗈𝖽𝖾𝗋"),
    )
    for name in strange:
        yield Animal(f"names: {name[:40]!r}", box({name: GOOD}, BODY), "names")
        both = box({"decoder": GOOD, name: entry(SHAPE, [SIZE, 2 * SIZE])}, BODY * 2)
        yield Animal(f"names: decoder and {name[:40]!r}", both, "names")
    many: dict[str, object] = {str(number): {} for number in range(5000)}
    yield Animal("names: 5000 tensors", box(many, BODY), "names")
    embeddings = entry([3, 32], [0, SIZE])
    for method in (
        "PROMPT_TUNING",
        "P_TUNING",
        "MULTITASK_PROMPT_TUNING",
        "INFIX_EMBEDDING",
        "TEXT",
    ):
        text = json.dumps({"format": 1, "method": method})
        yield Animal(f"names: {method} of a decoder", described(text), "names")
    for method in ("PREFIX_TUNING", "CARTRIDGE", "INFIX_TUNING", "INFIX_EMBEDDING", "TEXT"):
        about = {"prefixmux": json.dumps({"format": 1, "method": method})}
        data = box({"embeddings": embeddings}, BODY, about)
        yield Animal(f"names: {method} of embeddings", data, "names")
    for method in ("CARTRIDGE", "INFIX_TUNING"):
        about = {"prefixmux": json.dumps({"format": 1, "method": method})}
        data = box({"encoder": GOOD}, BODY, about)
        yield Animal(f"names: {method} of an encoder", data, "names")


def dtypes() -> Iterator[Animal]:
    wrong: tuple[object, ...] = (
        *("I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64", "BOOL", "F64", "F8_E4M3"),
        *("F8_E5M2", "F4", "C64", "f32", "F32 ", "float32", "BFLOAT16", "Bf16", "", "F32\0"),
        *(None, 32, True, ["F32"], {"F32": 1}),
    )
    for dtype in wrong:
        yield Animal(
            f"dtype: {dtype!r}", box({"decoder": entry(SHAPE, [0, SIZE], dtype)}, BODY), "dtype"
        )


def shapes() -> Iterator[Animal]:
    wrong: tuple[object, ...] = (
        *([], [SIZE // 4], [2, 2, 3, 8], [2, 2, 3, 2, 4, 1], [2, 2, 3, 2, 2, 2], [1] * 1000),
        *([-2, 2, 3, 2, 4], [2, 2, -3, 2, 4], [-2, -2, 3, 2, 4], [2.0, 2, 3, 2, 4]),
        *([2, 2, "3", 2, 4], [True, 2, 3, 2, 4], [2, 2, None, 2, 4], [[2, 2, 3, 2, 4]]),
        *(None, 96, "2,2,3,2,4", {"0": 2}, [2, 2, 3, 2, 4.5], [2, 2, 1e2, 2, 4]),
    )
    for shape in wrong:
        data = box({"decoder": entry(shape, [0, SIZE])}, BODY)
        yield Animal(f"shape: {str(shape)[:60]}", data, "shape")
    for shape in (
        [2, 1, 6, 2, 4],
        [2, 3, 2, 2, 4],
        [2, 3, 2, 4, 2],
        [3, 1, 2, 2, 8],
        [96, 1, 1, 1, 1],
    ):
        for site in ("decoder", "encoder", "cross"):
            data = box({site: entry(shape, [0, SIZE])}, BODY)
            yield Animal(f"shape: {site} {shape}", data, "shape")
    about = {"prefixmux": json.dumps({"format": 1, "method": "PROMPT_TUNING"})}
    for shape in ([96], [3, 4, 8], [2, 2, 3, 2, 4]):
        data = box({"embeddings": entry(shape, [0, SIZE])}, BODY, about)
        yield Animal(f"shape: embeddings {shape}", data, "shape")
    about = {"prefixmux": json.dumps({"format": 1, "method": "INFIX_EMBEDDING"})}
    both = {"decoder": GOOD, "embeddings": entry([4, 24], [SIZE, 2 * SIZE])}
    yield Animal("shape: infix of two lengths", box(both, BODY * 2, about), "shape")
    yield Animal("empty: no tensor", raw(b"{}"), "empty")
    yield Animal("empty: no tensor but bytes", raw(b"{}", BODY), "empty")
    alone = {"prefixmux": json.dumps({"format": 1, "method": "PREFIX_TUNING"})}
    yield Animal("empty: metadata alone", box({}, b"", alone), "empty")
    yield Animal("empty: foreign metadata alone", box({}, b"", {"format": "pt"}), "empty")
    for axis in range(5):
        shape = [size if place != axis else 0 for place, size in enumerate(SHAPE)]
        yield Animal(f"empty: axis {axis}", box({"decoder": entry(shape, [0, 0])}), "empty")
        data = box({"decoder": entry(shape, [0, SIZE])}, BODY)
        yield Animal(f"empty: axis {axis} with bytes", data, "empty")
    yield Animal("empty: zero by overflow", box({"decoder": entry([2**64, 0, 1], [0, 0])}), "empty")


def offsets() -> Iterator[Animal]:
    wrong: tuple[object, ...] = (
        *([0, SIZE - 4], [0, SIZE + 4], [4, SIZE + 4], [SIZE, 0], [0, 0], [SIZE, 2 * SIZE]),
        *([-SIZE, 0], [-4, SIZE - 4], [0, -SIZE], [0.0, 384.0], [0, 384.0], ["0", "384"]),
        *([False, SIZE], [0, True], [None, None], [0], [0, SIZE, SIZE], [], None, "0,384", 384),
        *(
            {"0": 0},
            [[0, SIZE]],
            [0, 2**63],
            [2**64 - SIZE, 2**64],
            [0, 2**64 + SIZE],
            [0, 10**400],
        ),
    )
    for place in wrong:
        data = box({"decoder": entry(SHAPE, place)}, BODY)
        yield Animal(f"offsets: {str(place)[:60]}", data, "offsets")
    huge = (
        [2**31, 2, 2**31, 2, 4],
        [2**62, 2, 1, 1, 1],
        [2**63, 2, 2**63, 1, 1],
        [2**64 + 2, 2, 3, 2, 4],
    )
    for shape in huge:
        data = box({"decoder": entry(shape, [0, SIZE])}, BODY)
        yield Animal(f"offsets: sizes {shape}", data, "offsets")
    for axis in range(5):
        for step in (-1, 1):
            shape = [size + step * (place == axis) for place, size in enumerate(SHAPE)]
            data = box({"decoder": entry(shape, [0, SIZE])}, BODY)
            yield Animal(f"offsets: axis {axis} {step:+d}", data, "offsets")
    yield Animal(
        "offsets: F16 of F32's size",
        box({"decoder": entry(SHAPE, [0, SIZE], "F16")}, BODY),
        "offsets",
    )
    second = {
        "overlap": [SIZE - 4, 2 * SIZE - 4],
        "same place": [0, SIZE],
        "gap": [SIZE + 4, 2 * SIZE + 4],
        "backwards": [2 * SIZE, SIZE],
    }
    for name, place in second.items():
        data = box({"decoder": GOOD, "encoder": entry(SHAPE, place)}, BODY * 3)
        yield Animal(f"offsets: {name}", data, "offsets")
    swapped = {"decoder": entry(SHAPE, [SIZE, 2 * SIZE]), "encoder": GOOD}
    yield Animal("offsets: out of order", box(swapped, BODY * 2), "offsets")
    about = {"prefixmux": json.dumps({"format": 1, "method": "TEXT", "token_ids": [1]})}
    yield Animal("offsets: a text with bytes behind", box({}, b"\0", about), "offsets")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr("x", "y")
    for name, rest in {"one byte": b"\0", "zip": archive.getvalue(), "itself": prefix()}.items():
        yield Animal(f"offsets: followed by {name}", prefix() + rest, "offsets")


def metadata() -> Iterator[Animal]:
    outer: dict[str, object] = {
        "array": [],
        "string": "x",
        "number": 1,
        "true": True,
        "number value": {"a": 1},
        "null value": {"a": None},
        "object value": {"a": {}},
        "array value": {"a": ["b"]},
        "too long value": {"a": "b" * 4096},
        "too long key": {"a" * 4097: ""},
        "too many keys": {str(number): "x" for number in range(2000)},
        "too long in bytes only": {"a": "é" * 2048},
    }
    for name, value in outer.items():
        yield Animal(f"metadata: {name}", box({"decoder": GOOD}, BODY, value), "metadata")
    null = raw(json.dumps({"__metadata__": None, "decoder": GOOD}).encode(), BODY)
    yield Animal("metadata: null", null, "metadata")
    fine: dict[str, object] = {"format": 1, "method": "PREFIX_TUNING"}
    texts = {
        "empty": "",
        "no JSON": "{",
        "array": "[]",
        "null": "null",
        "string": '"PREFIX_TUNING"',
        "NaN": '{"format":1,"method":"PREFIX_TUNING","provenance":{"a":NaN}}',
        "Infinity": '{"format":1,"method":"PREFIX_TUNING","provenance":{"a":-Infinity}}',
        "float beyond all": '{"format":1,"method":"PREFIX_TUNING","provenance":{"a":1e999}}',
        "lone surrogate": '{"format":1,"method":"PREFIX_TUNING","provenance":{"a":"\\ud800"}}',
        "deep": "[" * 2000 + "]" * 2000,
        "nothing": "{}",
        "no method": '{"format":1}',
        "no format": '{"method":"PREFIX_TUNING"}',
    }
    changes: dict[str, dict[str, object]] = {
        "unknown field": {"extra": 1},
        "format 0": {"format": 0},
        "format 2": {"format": 2},
        "format true": {"format": True},
        "format float": {"format": 1.0},
        "format string": {"format": "1"},
        "method null": {"method": None},
        "method number": {"method": 1},
        "method unknown": {"method": "LORA"},
        "method lower case": {"method": "prefix_tuning"},
        "base null": {"base": None},
        "base array": {"base": []},
        "base unknown claim": {"base": {"weights": 1}},
        "base layers 0": {"base": {"layers": 0}},
        "base layers negative": {"base": {"layers": -1}},
        "base layers float": {"base": {"layers": 2.0}},
        "base layers string": {"base": {"layers": "2"}},
        "base layers true": {"base": {"layers": True}},
        "base layers null": {"base": {"layers": None}},
        "base layers huge": {"base": {"layers": 2**63}},
        "base architecture number": {"base": {"architecture": 1}},
        "base architecture null": {"base": {"architecture": None}},
        "base fingerprint short": {"base": {"fingerprint": "sha256:aa"}},
        "base fingerprint upper case": {"base": {"fingerprint": "sha256:" + "A" * 64}},
        "base fingerprint bare": {"base": {"fingerprint": "a" * 64}},
        "base fingerprint number": {"base": {"fingerprint": 1}},
        "offset array": {"position_offset": [3]},
        "offset number": {"position_offset": 3},
        "offset of nothing": {"position_offset": {"embeddings": 0}},
        "offset of a strange site": {"position_offset": {"../x": 0}},
        "offset of an absent site": {"position_offset": {"encoder": 3}},
        "offset negative": {"position_offset": {"decoder": -1}},
        "offset float": {"position_offset": {"decoder": 3.0}},
        "offset true": {"position_offset": {"decoder": True}},
        "offset string": {"position_offset": {"decoder": "3"}},
        "offset in between": {"position_offset": {"decoder": 2}},
        "offset beyond": {"position_offset": {"decoder": 4}},
        "offset huge": {"position_offset": {"decoder": 2**70}},
        "provenance null": {"provenance": None},
        "provenance string": {"provenance": "me"},
        "provenance nested": {"provenance": {"a": {"b": 1}}},
        "provenance list": {"provenance": {"a": [1]}},
        "token_ids of a tensor": {"token_ids": [1, 2]},
        "text of a tensor": {"text": "x"},
    }
    texts |= {name: json.dumps({**fine, **change}) for name, change in changes.items()}
    for name, text in texts.items():
        yield Animal(f"metadata: described {name}", described(text), "metadata")
    ids: dict[str, object] = {
        **{"null": None, "number": 1, "string": "1", "none": [], "nested": [[1]]},
        **{"float": [1.0], "true": [True], "negative": [-1], "null inside": [1, None]},
        **{"huge": [2**63], "text inside": [1, "2"]},
    }
    for name, token_ids in ids.items():
        about = {"prefixmux": json.dumps({**fine, "method": "TEXT", "token_ids": token_ids})}
        yield Animal(f"metadata: token_ids {name}", box({}, b"", about), "metadata")
    texts_of = {"number": 1, "null": None, "list": ["x"]}
    for name, value in texts_of.items():
        described_text = {**fine, "method": "TEXT", "token_ids": [1], "text": value}
        about = {"prefixmux": json.dumps(described_text)}
        yield Animal(f"metadata: text {name}", box({}, b"", about), "metadata")
    about = {"prefixmux": json.dumps({**fine, "method": "TEXT", "text": "x"})}
    yield Animal("metadata: a text without token_ids", box({}, b"", about), "metadata")
    for site in ("encoder", "cross"):
        about = {"prefixmux": json.dumps({**fine, "position_offset": {site: 3}})}
        yield Animal(f"metadata: shifted {site}", box({site: GOOD}, BODY, about), "metadata")
    for method, name, shape in (
        ("PREFIX_TUNING", "encoder", SHAPE),
        ("P_TUNING", "embeddings", [3, 32]),
    ):
        text = json.dumps({**fine, "method": method, "position_offset": {"decoder": 3}})
        data = box({name: entry(shape, [0, SIZE])}, BODY, {"prefixmux": text})
        yield Animal(f"metadata: a decoder shifted by {name}", data, "metadata")


def values() -> Iterator[Animal]:
    words = {"F32": "<u4", "F16": "<u2", "BF16": "<u2"}
    bad: dict[str, tuple[dict[str, int], Reason]] = {
        "NaN": ({"F32": 0x7FC00000, "F16": 0x7E00, "BF16": 0x7FC0}, "non_finite"),
        "negative NaN": ({"F32": 0xFFC00000, "F16": 0xFE00, "BF16": 0xFFC0}, "non_finite"),
        "signalling NaN": ({"F32": 0x7F800001, "F16": 0x7C01, "BF16": 0x7F81}, "non_finite"),
        "inf": ({"F32": 0x7F800000, "F16": 0x7C00, "BF16": 0x7F80}, "non_finite"),
        "-inf": ({"F32": 0xFF800000, "F16": 0xFC00, "BF16": 0xFF80}, "non_finite"),
        "largest": ({"F32": 0x7F7FFFFF, "F16": 0x7BFF, "BF16": 0x7F7F}, "magnitude"),
        "-largest": ({"F32": 0xFF7FFFFF, "F16": 0xFBFF, "BF16": 0xFF7F}, "magnitude"),
        "just beyond": ({"F32": 0x461C4001, "F16": 0x70E3, "BF16": 0x461D}, "magnitude"),
        "just beyond, negative": ({"F32": 0xC61C4001, "F16": 0xF0E3, "BF16": 0xC61D}, "magnitude"),
    }
    for name, (patterns, reason) in bad.items():
        for dtype, pattern in patterns.items():
            for place, at in {"first": 0, "middle": 47, "last": -1}.items():
                array = np.frombuffer(kv(dtype=dtype).data, words[dtype]).copy()
                array[at] = pattern
                data = box({"decoder": entry(SHAPE, [0, array.nbytes], dtype)}, array.tobytes())
                yield Animal(f"values: {name} {place} {dtype}", data, reason)
    nan = np.full(96, np.nan, "<f4").tobytes()
    huge = np.full(96, 3e38, "<f4").tobytes()
    two = {"cross": entry(SHAPE, [0, SIZE]), "decoder": entry(SHAPE, [SIZE, 2 * SIZE])}
    yield Animal("values: NaN in the second tensor", box(two, BODY + nan), "non_finite")
    yield Animal("values: huge in the first, NaN in the second", box(two, huge + nan), "non_finite")
