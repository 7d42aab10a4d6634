"""Whether a well-formed prefix fits a model. Knows shapes only, never the model itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prefixmux_store.errors import IncompatiblePrefix, InvalidPrefix, UnsupportedMethod
from prefixmux_store.format import PrefixFile
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

    `methods` are those the server runs on this model; `sites` are keyed as tensors are.
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


def check_model(file: PrefixFile, shape: ModelShape) -> None:
    """Raises `InvalidPrefix` too_long, `UnsupportedMethod` or `IncompatiblePrefix`, in this order;
    the last names both sides. What a file does not claim is not compared."""
    if file.tokens > shape.max_prefix_tokens:
        message = (
            f"The prefix has {file.tokens} virtual tokens; {shape.max_prefix_tokens} are allowed."
        )
        raise InvalidPrefix("too_long", message)
    if file.meta.method not in shape.methods:
        known = ", ".join(shape.methods)
        raise UnsupportedMethod(
            f"Method {file.meta.method} is not supported for this model; supported: {known}."
        )
    _check_claims(file, shape)
    for name, tensor in file.tensors.items():
        if name == "embeddings":
            _compare("embedding width", tensor.shape[1], shape.hidden)
        else:
            _check_site(name, tensor, shape)


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
