"""Checkpoints of the code published with the paper (Li and Liang, 2021), for GPT-2 and BART.

A folder holds config.json and pytorch_model.bin. Which kind of prefix it is, and how long, is read
from the tensors, because that code leaves stale numbers in its config:

    wte, control_trans.{0,2[,4]}       a prefix behind an MLP; for BART of the decoder, and the
                                       same as *_enc for the encoder and *2 for cross-attention
    control_trans                      a prefix as it is: flat, or [2L, 1, H, P, D] from words
    wte2 beside them (GPT-2)           an infix: embeddings that run after the input, and keys and
                                       values that are added to theirs
    wte[, control_trans to one width]  embeddings alone

Only the prefix is inside, never the language model: what was trained together with its model, or
is computed from the input, cannot be a static prefix and is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prefixmux_store.convert.checkpoints import Array, load_torch
from prefixmux_store.convert.config_files import load_object, plain, size
from prefixmux_store.convert.folding import Heads, apply_mlp, key_values, linear_places, raw
from prefixmux_store.errors import InvalidPrefix, UnsupportedMethod
from prefixmux_store.format import BaseClaim, PrefixMeta, RawTensor, encode

CONFIG, WEIGHTS = "config.json", "pytorch_model.bin"
ARCHITECTURES = frozenset({"PrefixTuning", "PrefixEmbTuning"})

_SIZES = {
    "gpt2": ("n_layer", "n_head", "n_embd"),
    "bart": ("decoder_layers", "decoder_attention_heads", "d_model"),
}
# Suffixes of wte and control_trans.
_BART_SITES = {"decoder": "", "encoder": "_enc", "cross": "2"}


@dataclass(frozen=True)
class _Content:
    method: str
    tensors: Mapping[str, RawTensor]
    position_offset: Mapping[str, int] | None = None


def from_li_liang(folder: Path) -> bytes:
    """The native file. Raises `UnsupportedMethod`, `InvalidPrefix`, `UnsafeFormat`, `OSError`."""
    config = load_object((folder / CONFIG).read_bytes(), CONFIG)
    family = _checked_family(config, folder)
    layers, heads, hidden = (size(config, key, CONFIG) for key in _SIZES[family])
    if hidden % heads:
        raise InvalidPrefix("shape", f"{CONFIG}'s width {hidden} is no multiple of {heads} heads.")
    shape = Heads(layers, heads, hidden // heads)
    tensors = load_torch(folder / WEIGHTS)
    _refuse_models(tensors)
    content = _bart(tensors, shape) if family == "bart" else _gpt2(tensors, shape, config)
    described = PrefixMeta(
        method=content.method,
        base=BaseClaim(layers=layers, kv_heads=heads, head_dim=shape.width, hidden=hidden),
        position_offset=content.position_offset,
        provenance={"source": "li-liang", "task": plain(config.get("_my_arg_task_mode"), 40)},
    )
    return encode(content.tensors, described)


def _gpt2(tensors: Mapping[str, Array], shape: Heads, config: Mapping[str, object]) -> _Content:
    if "control_trans" in tensors:
        _check_names(tensors, {"control_trans"})
        return _Content("PREFIX_TUNING", {"decoder": _shallow(tensors["control_trans"], shape)})
    tokens = _embedding(tensors, "wte")
    if not any(name.startswith("control_trans.") for name in tensors):
        _check_names(tensors, {"wte.weight"})
        return _Content("PROMPT_TUNING", {"embeddings": raw(tokens)})
    flat, names = _folded(tensors, "")
    if flat.shape[1] == shape.heads * shape.width:
        _check_names(tensors, names)
        return _Content("P_TUNING", {"embeddings": raw(flat)})
    decoder = key_values(flat, shape)
    if config.get("use_infix") is not True and "wte2.weight" not in tensors:
        _check_names(tensors, names)
        return _Content("PREFIX_TUNING", {"decoder": decoder})
    infix = _embedding(tensors, "wte2")
    _check_names(tensors, names | {"wte2.weight"})
    return _Content("INFIX_EMBEDDING", {"embeddings": raw(infix), "decoder": decoder})


def _bart(tensors: Mapping[str, Array], shape: Heads) -> _Content:
    """Positions are shifted at no site."""
    found: dict[str, RawTensor] = {}
    used: set[str] = set()
    for site, suffix in _BART_SITES.items():
        if f"wte{suffix}.weight" in tensors:
            flat, names = _folded(tensors, suffix)
            found[site] = key_values(flat, shape)
            used |= names
    _check_names(tensors, used)
    offset = {"decoder": 0} if "decoder" in found else None
    return _Content("PREFIX_TUNING", found, offset)


def _folded(tensors: Mapping[str, Array], suffix: str) -> tuple[Array, set[str]]:
    """`[P, out]`, and the names of the tensors that went into it."""
    name = f"control_trans{suffix}"
    flat = apply_mlp(_embedding(tensors, f"wte{suffix}"), tensors, name)
    layers = {f"{name}.{place}" for place in linear_places(tensors, name)}
    names = {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    return flat, names | {f"wte{suffix}.weight"}


def _shallow(values: Array, shape: Heads) -> RawTensor:
    if values.ndim == 1:
        tokens, rest = divmod(values.size, shape.columns)
        if rest or not tokens:
            message = f"control_trans holds {values.size} values, {shape.columns} per token."
            raise InvalidPrefix("shape", message)
        return key_values(values.reshape(tokens, shape.columns), shape)
    sizes = (2 * shape.layers, 1, shape.heads, shape.width)
    if values.ndim != 5 or (*values.shape[:3], values.shape[4]) != sizes:
        message = "control_trans has to be flat, or [2 * layers, 1, heads, tokens, head_dim]."
        raise InvalidPrefix("shape", message)
    by_layer = values.reshape(shape.layers, 2, *values.shape[2:])
    return raw(by_layer.transpose(0, 1, 3, 2, 4))


def _embedding(tensors: Mapping[str, Array], name: str) -> Array:
    table = tensors.get(f"{name}.weight")
    if table is None:
        raise UnsupportedMethod(
            f"The checkpoint has no {name}: its prefix is computed from the input"
            " (optim_prefix off) or incomplete, and is no static prefix."
        )
    if table.ndim != 2 or not table.size:
        raise InvalidPrefix("shape", f"{name}.weight has to be [tokens, hidden].")
    return table


def _check_names(tensors: Mapping[str, Array], used: set[str]) -> None:
    if unknown := sorted(tensors.keys() - used) or ([] if used else ["nothing"]):
        names = ", ".join(plain(name, 60) for name in unknown[:4])
        raise InvalidPrefix("names", f"The checkpoint holds {names}, which no kind of prefix has.")


def _checked_family(config: Mapping[str, object], folder: Path) -> str:
    family, named = config.get("model_type"), config.get("architectures")
    if not isinstance(named, list) or not set(map(str, named)) & ARCHITECTURES:
        message = f"{CONFIG} is of {plain(named)}, not of a prefix of the paper's code."
        raise UnsupportedMethod(message)
    if family not in ("gpt2", "bart"):
        message = f"The paper's code has prefixes for gpt2 and bart, not for {plain(family, 40)}."
        raise UnsupportedMethod(message)
    if family == "bart" and ("PrefixEmbTuning" in named or config.get("use_infix") is True):
        message = "The paper's code has neither embeddings alone nor an infix for BART."
        raise UnsupportedMethod(message)
    if config.get("optim_prefix") in (False, "no"):
        message = "optim_prefix is off: the prefix is computed from each input, not a static one."
        raise UnsupportedMethod(message)
    mode = config.get("_my_arg_tune_mode", "prefixtune")
    tuned = config.get("train_weights") in (True, "yes") or (folder / "gpt2").is_dir()
    if mode != "prefixtune" or tuned:
        raise UnsupportedMethod(
            f"The language model itself was trained (tune mode {plain(mode, 40)}): a prefix alone"
            " would not give its answers."
        )
    return family


def _refuse_models(tensors: Mapping[str, Array]) -> None:
    whole = ("transformer.", "model.", "lm_head", "h.", "encoder.", "decoder.", "shared.")
    if any(name.startswith(whole) for name in tensors):
        raise UnsupportedMethod(f"{WEIGHTS} holds a whole language model, not a prefix alone.")
