"""The native prefix file: safetensors bytes to a `PrefixFile` and back.

Owns every rule that needs no model; `validate` owns those that do. Content is read from bytes
only: no path, no library that could run what it loads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from prefixmux_store import container, meta
from prefixmux_store.container import Outline
from prefixmux_store.errors import InvalidPrefix
from prefixmux_store.meta import BaseClaim, PrefixMeta
from prefixmux_store.names import digest_of
from prefixmux_store.tensors import RawTensor, check_values

__all__ = ["BaseClaim", "PrefixFile", "PrefixMeta", "RawTensor", "encode", "parse"]

_NAMES = meta.KV_SITES | {"embeddings"}
_DECODER_ONLY = frozenset({"CARTRIDGE", "INFIX_TUNING"})


@dataclass(frozen=True)
class PrefixFile:
    """A checked file. KV tensors are `[L, 2, P, H_kv, D]` (0 keys, 1 values), `embeddings`
    `[P, hidden]`; a text has no tensors but token ids. `data` are the file's bytes, of which the
    tensors are views."""

    digest: str
    meta: PrefixMeta
    tensors: Mapping[str, RawTensor]
    data: bytes = field(repr=False)

    @property
    def sites(self) -> dict[str, int]:
        """Virtual tokens by tensor name; those of a text by `text`."""
        if self.meta.token_ids is not None:
            return {"text": len(self.meta.token_ids)}
        return {name: _tokens(tensor) for name, tensor in sorted(self.tensors.items())}

    @property
    def tokens(self) -> int:
        return max(self.sites.values())

    @property
    def nbytes(self) -> int:
        """Size of the file, header included."""
        return len(self.data)

    def offset(self, site: str) -> int:
        """How far the real tokens' positions are shifted at a site."""
        if self.meta.position_offset is not None:
            return self.meta.position_offset.get(site, 0)
        return self.sites.get(site, 0) if site == "decoder" else 0


def parse(data: bytes) -> PrefixFile:
    """Raises `UnsafeFormat`, or `InvalidPrefix` with the first rule broken."""
    box = container.read(data, _NAMES, may_be_bare=True)
    for name, tensor in box.tensors.items():
        _check_shape(name, tensor)
    text = box.metadata.get(meta.KEY)
    described = PrefixMeta() if text is None else meta.load(text)
    _check_method(described, box.tensors)
    _check_offsets(described, box.tensors)
    check_values(box.tensors)
    return PrefixFile(digest_of(data), described, box.tensors, data)


def encode(tensors: Mapping[str, RawTensor], described: PrefixMeta) -> bytes:
    """Canonical bytes: the same content gives the same file, on every machine.

    Whatever is passed in, only a file that `parse` accepts comes out: raises as `parse` does.
    """
    data = container.write(tensors, {meta.KEY: meta.dump(described)})
    header_bytes = len(data) - container.LENGTH_BYTES
    if described.method == "TEXT" and header_bytes > container.MAX_HEADER_BYTES:
        raise InvalidPrefix("too_long", "The text is too long to be stored as a prefix.")
    parse(data)
    return data


def input_tokens(outline: Outline) -> int:
    """How many virtual tokens a file holds that run as a model's inputs, with nothing else beside
    them; 0: it holds keys and values. Raises `InvalidPrefix` if it holds nothing."""
    text = outline.metadata.get(meta.KEY)
    described = PrefixMeta() if text is None else meta.load(text)
    if described.token_ids is not None:
        return len(described.token_ids)
    if not outline.shapes:
        raise InvalidPrefix("empty", "The file holds no tensors.")
    return outline.shapes["embeddings"][0] if outline.shapes.keys() == {"embeddings"} else 0


def _tokens(tensor: RawTensor) -> int:
    return tensor.shape[0] if len(tensor.shape) == 2 else tensor.shape[2]


def _check_shape(name: str, tensor: RawTensor) -> None:
    if name == "embeddings":
        if len(tensor.shape) != 2:
            raise InvalidPrefix("shape", "Tensor embeddings has to be [tokens, hidden].")
    elif len(tensor.shape) != 5 or tensor.shape[1] != 2:
        message = f"Tensor {name} has to be [layers, 2, tokens, kv_heads, head_dim]."
        raise InvalidPrefix("shape", message)


def _check_method(described: PrefixMeta, tensors: Mapping[str, RawTensor]) -> None:
    method, names = described.method, tensors.keys()
    if method == "TEXT":
        fits = not names
    elif not names:
        raise InvalidPrefix("empty", f"The file holds no tensors, which {method} needs.")
    elif method == "PREFIX_TUNING":
        fits = names <= meta.KV_SITES
    elif method == "INFIX_EMBEDDING":
        fits = names == {"embeddings", "decoder"}
    else:
        fits = (method in meta.EMBEDDING_METHODS and names == {"embeddings"}) or (
            method in _DECODER_ONLY and names == {"decoder"}
        )
    if not fits:
        raise InvalidPrefix("names", f"Method {method} does not go with the file's tensors.")
    _check_text(described)
    if method == "INFIX_EMBEDDING" and len({_tokens(tensor) for tensor in tensors.values()}) > 1:
        raise InvalidPrefix("shape", "embeddings and decoder differ in their number of tokens.")


def _check_text(described: PrefixMeta) -> None:
    is_text = described.method == "TEXT"
    if (described.token_ids is not None) != is_text or (described.text is not None and not is_text):
        message = "token_ids belong to method TEXT, which needs them; text may stand beside them."
        raise InvalidPrefix("metadata", message)


def _check_offsets(described: PrefixMeta, tensors: Mapping[str, RawTensor]) -> None:
    """Only the decoder can be shifted, by nothing or by the length of what it has."""
    offsets = described.position_offset
    if offsets is None:
        return
    for site, offset in offsets.items():
        if offset and site not in tensors:
            raise InvalidPrefix("metadata", f"position_offset shifts {site}, which has no tensor.")
        if offset and (site != "decoder" or offset != _tokens(tensors[site])):
            message = f"position_offset of {site} is neither 0 nor a decoder prefix's length."
            raise InvalidPrefix("metadata", message)
    if described.method == "INFIX_EMBEDDING" and not offsets.get("decoder"):
        raise InvalidPrefix(
            "metadata",
            "position_offset of INFIX_EMBEDDING is the decoder's length: its virtual tokens stand"
            " at positions of their own. Say that, or leave position_offset out.",
        )
