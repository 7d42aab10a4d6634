"""Prefix tuning of the `adapters` library (AdapterHub), flat or behind its MLP.

A folder holds adapter_config.json and adapter.safetensors or pytorch_adapter.bin. All layers of a
site share one module, whose tensors may stand in the file once or once per layer:

    *.prefix_tunings.NAME.SITE.control_trans            flat: [P * 2L * H * D]
    *.prefix_tunings.NAME.SITE.wte.weight               behind an MLP: [P, hidden]
    *.prefix_tunings.NAME.SITE.control_trans.{0,2}.*

The library puts keys and values before the module's own and shifts no position. Refused by name:
gates, which depend on the hidden state, and T5, where the library computes the relative bias as if
the prefix stood before the keys but not before the queries, which no prefix can express.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from prefixmux_store.convert.checkpoints import Array, load_safetensors, load_torch
from prefixmux_store.convert.config_files import load_object, plain, size
from prefixmux_store.convert.folding import Heads, activation, apply_mlp, key_values
from prefixmux_store.errors import IncompatiblePrefix, InvalidPrefix, UnsupportedMethod
from prefixmux_store.format import BaseClaim, PrefixMeta, RawTensor, encode, parse
from prefixmux_store.validate import ModelShape, check_model

CONFIG, SAFE, WEIGHTS = "adapter_config.json", "adapter.safetensors", "pytorch_adapter.bin"

_SITES = {"self_prefix": "decoder", "encoder_prefix": "encoder", "cross_prefix": "cross"}
_KEY = re.compile(r"(?:.*\.)?prefix_tunings\.([^.]+)\.([^.]+)\.((?:wte|control_trans)(?:\..+)?)")


def from_adapterhub(folder: Path, shape: ModelShape) -> bytes:
    """The native file; heads are not in the adapter's own files, so `shape` gives them. Raises
    `UnsupportedMethod`, `InvalidPrefix`, `IncompatiblePrefix`, `UnsafeFormat`, `OSError`."""
    content = load_object((folder / CONFIG).read_bytes(), CONFIG)
    config = _checked_config(content)
    tensors = _load(folder)
    if any(".prefix_gates." in name for name in tensors):
        raise _gated()
    sites = {site: _site(site, parts, config, shape) for site, parts in _by_site(tensors).items()}
    described = PrefixMeta(
        method="PREFIX_TUNING",
        base=BaseClaim(
            layers=shape.layers,
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            hidden=shape.hidden,
        ),
        position_offset={"decoder": 0} if "decoder" in sites else None,
        provenance={"source": "adapterhub", "base_model": plain(content.get("model_name"))},
    )
    data = encode(sites, described)
    check_model(parse(data), shape)
    return data


def is_adapterhub(content: Mapping[str, object]) -> bool:
    """Whether an adapter_config.json is this library's, and not PEFT's."""
    return "peft_type" not in content and isinstance(content.get("config"), dict)


def _checked_config(content: Mapping[str, object]) -> Mapping[str, object]:
    config = content.get("config")
    if not isinstance(config, dict) or config.get("architecture") != "prefix_tuning":
        kind = config.get("architecture") if isinstance(config, dict) else config
        message = f"Adapters of architecture {plain(kind, 40)} are not supported: prefix_tuning is."
        raise UnsupportedMethod(message)
    if config.get("use_gating"):
        raise _gated()
    if config.get("leave_out"):
        raise UnsupportedMethod("Prefixes that leave_out layers are not supported.")
    if content.get("model_type") in ("t5", "mt5"):
        raise UnsupportedMethod(
            "Prefixes of this library for T5 are not supported: it shifts the bias between the"
            " model's own tokens, which no prefix can express. Train it with PEFT instead."
        )
    return config


def _gated() -> UnsupportedMethod:
    return UnsupportedMethod(
        "Gated prefixes (use_gating, UniPELT) are not supported: a gate depends on the hidden"
        " state, so that the prefix is no static one."
    )


def _load(folder: Path) -> Mapping[str, Array]:
    safe = folder / SAFE
    return load_safetensors(safe) if safe.is_file() else load_torch(folder / WEIGHTS)


def _by_site(tensors: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    """Each site's tensors by their short names."""
    sites: dict[str, dict[str, Array]] = {}
    names = set()
    for name, value in tensors.items():
        found = _KEY.fullmatch(name)
        if found is None or found[2] not in _SITES:
            message = f"Tensor {plain(name, 80)} is of no prefix for a served model."
            raise InvalidPrefix("names", message)
        names.add(found[1])
        site = sites.setdefault(_SITES[found[2]], {})
        if not np.array_equal(site.setdefault(found[3], value), value):
            message = f"{plain(found[3], 80)} differs from layer to layer."
            raise InvalidPrefix("duplicate", message)
    if len(names) != 1:
        raise InvalidPrefix("names", f"The file holds {len(names)} prefixes; save one alone.")
    return sites


def _site(
    site: str, parts: Mapping[str, Array], config: Mapping[str, object], shape: ModelShape
) -> RawTensor:
    model = shape.sites.get(site)
    if model is None:
        have = ", ".join(sorted(shape.sites))
        raise IncompatiblePrefix(f"The prefix is for the site {site}; the model has: {have}.")
    heads = Heads(model.layers, model.kv_heads, model.k_dim)
    tokens = size(config, "prefix_length", CONFIG)
    if config.get("flat"):
        flat = parts.get("control_trans")
        if flat is None or flat.shape != (tokens * heads.columns,):
            raise _misfit(site, tokens, heads)
        return key_values(flat.reshape(tokens, heads.columns), heads)
    table = parts.get("wte.weight")
    if table is None or table.ndim != 2 or table.shape[0] != tokens:
        raise InvalidPrefix("shape", f"prefix_length {tokens} is not what wte holds at {site}.")
    between = activation(str(config.get("non_linearity", "tanh")).lower())
    flat = apply_mlp(table, parts, "control_trans", between)
    if flat.shape[1] != heads.columns:
        raise _misfit(site, tokens, heads)
    return key_values(flat, heads)


def _misfit(site: str, tokens: int, heads: Heads) -> IncompatiblePrefix:
    return IncompatiblePrefix(
        f"The prefix does not fit the model at {site}: there it needs {tokens} tokens x"
        f" {heads.columns} values ({heads.layers} layers, {heads.heads} heads of {heads.width})."
    )
