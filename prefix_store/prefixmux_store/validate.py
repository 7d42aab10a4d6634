"""Whether a well-formed prefix fits a model. Knows shapes only, never the model itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prefixmux_store.errors import IncompatiblePrefix, InvalidPrefix, UnsupportedMethod
from prefixmux_store.format import PrefixFile
from prefixmux_store.meta import INFIX_METHODS
from prefixmux_store.tensors import RawTensor


@dataclass(frozen=True)
class SiteShape:
    """One attention site; head sizes in elements."""

    layers: int
    kv_heads: int
    k_dim: int
    v_dim: int


@dataclass(frozen=True)
class ModelShape:
    """All that a prefix is measured against. `fingerprint` None: not known.

    `family` is causal (decoder-only) or seq2seq (encoder-decoder); `layers`, `kv_heads` and
    `head_dim` are the decoder's. `methods` are those the server runs on this model; `sites` are
    keyed as tensors are. `embedding_width` is a virtual token's, None: `hidden`.
    """

    architecture: str
    family: str
    layers: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocabulary: int
    fingerprint: str | None
    methods: tuple[str, ...]
    sites: Mapping[str, SiteShape]
    max_prefix_tokens: int
    embedding_width: int | None = None


def check_model(file: PrefixFile, shape: ModelShape) -> None:
    """Raises `InvalidPrefix` too_long, `UnsupportedMethod` or `IncompatiblePrefix`, in this order;
    the last names both sides. What a file does not claim is not compared."""
    if file.tokens > shape.max_prefix_tokens:
        message = (
            f"The prefix has {file.tokens} virtual tokens; {shape.max_prefix_tokens} are allowed."
        )
        raise InvalidPrefix("too_long", message)
    _check_family(file, shape)
    if file.meta.method not in shape.methods:
        known = ", ".join(shape.methods)
        raise UnsupportedMethod(
            f"Method {file.meta.method} is not supported for this model; supported: {known}."
        )
    _check_claims(file, shape)
    for name, tensor in file.tensors.items():
        if name == "embeddings":
            width = shape.hidden if shape.embedding_width is None else shape.embedding_width
            _compare("embedding width", tensor.shape[1], width)
        else:
            _check_site(name, tensor, shape)
    _check_vocabulary(file.meta.token_ids or (), shape)


def _check_family(file: PrefixFile, shape: ModelShape) -> None:
    """What one family has and the other has not, said so that the caller knows what to do."""
    method = file.meta.method
    if shape.family == "seq2seq" and method in INFIX_METHODS:
        raise UnsupportedMethod(
            f"{method} needs a decoder-only model, whose one sequence an infix divides; this model"
            " has an encoder and a decoder. Serve it on a decoder-only model, or train a prefix"
            " (PREFIX_TUNING) for this one."
        )
    lacking = sorted(file.tensors.keys() & {"encoder", "cross"})
    if shape.family == "causal" and lacking:
        raise IncompatiblePrefix(
            f"The prefix is for the site {lacking[0]}; the model has: decoder. Serve it on an"
            f" encoder-decoder model, or leave the tensor {lacking[0]} out of the file."
        )
    if shape.family == "causal" and "decoder" not in file.tensors:
        _check_runs(file.meta.position_offset or {})


def _check_runs(offsets: Mapping[str, int]) -> None:
    """Whose virtual tokens run as a decoder-only model's inputs shifts what follows them."""
    if "decoder" in offsets:
        raise IncompatiblePrefix(
            "The prefix says that it does not shift the decoder; on a decoder-only model its"
            " virtual tokens stand at positions of their own: leave decoder out of position_offset."
        )


def _check_claims(file: PrefixFile, shape: ModelShape) -> None:
    base = file.meta.base
    for what, claimed, actual in (
        ("fingerprint", base.fingerprint, shape.fingerprint),
        ("architecture", base.architecture, shape.architecture),
        ("layers", base.layers, shape.layers),
        ("kv_heads", base.kv_heads, shape.kv_heads),
        ("head_dim", base.head_dim, shape.head_dim),
        ("hidden", base.hidden, shape.hidden),
        ("vocabulary", base.vocab, shape.vocabulary),
    ):
        if claimed is not None and actual is not None:
            _compare(what, claimed, actual)


def _check_vocabulary(token_ids: Sequence[int], shape: ModelShape) -> None:
    largest = max(token_ids, default=0)
    if largest >= shape.vocabulary:
        raise IncompatiblePrefix(
            f"The prefix does not fit the model: token id {largest} in the prefix,"
            f" {shape.vocabulary} tokens in the model's vocabulary."
        )


def _check_site(name: str, tensor: RawTensor, shape: ModelShape) -> None:
    site = shape.sites.get(name)
    if site is None:
        have = ", ".join(sorted(shape.sites))
        raise IncompatiblePrefix(f"The prefix is for the site {name}; the model has: {have}.")
    if site.k_dim != site.v_dim:
        raise IncompatiblePrefix(
            f"The prefix has keys and values of one size at {name};"
            f" the model's are {site.k_dim} and {site.v_dim}."
        )
    layers, _, _, heads, width = tensor.shape
    _compare(f"layers at {name}", layers, site.layers)
    _compare(f"kv_heads at {name}", heads, site.kv_heads)
    _compare(f"head_dim at {name}", width, site.k_dim)


def _compare(what: str, claimed: str | int, actual: str | int) -> None:
    if claimed != actual:
        raise IncompatiblePrefix(
            f"The prefix does not fit the model: {what} {_show(claimed)} in the prefix,"
            f" {_show(actual)} in the model."
        )


def _show(value: str | int) -> str:
    """A claim is the client's own text: kept short and printable."""
    return "".join(char if char.isprintable() else "?" for char in str(value)[:80])
