"""PEFT's two files (adapter_config.json, adapter_model.safetensors) to a native prefix file.

Serves the types that store final keys and values, for decoder-only models: PREFIX_TUNING, with or
without projection (which PEFT has applied already when it saves), and CARTRIDGE. Both files are
hostile bytes: the config is read as strict JSON, the weights by the native file's own rules, and
nothing they name is ever opened, fetched or imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from prefixmux_store import container, strict_json
from prefixmux_store.errors import InvalidPrefix, UnsupportedMethod
from prefixmux_store.format import BaseClaim, PrefixMeta, RawTensor, encode, parse
from prefixmux_store.tensors import check_values
from prefixmux_store.validate import ModelShape, check_model

MAX_CONFIG_BYTES = 64 * 1024

_TENSOR = "prompt_embeddings"
_TYPES = frozenset({"PREFIX_TUNING", "CARTRIDGE"})
# Together, even if every character is escaped, these fit into a native file's metadata.
_MAX_NAME = 200
_MAX_VERSION = 40


@dataclass(frozen=True)
class _Config:
    """The sizes are PEFT's: `heads` are KV heads, `width` is heads * head_dim."""

    method: str
    tokens: int
    layers: int
    heads: int
    width: int
    provenance: Mapping[str, str]


def from_peft(adapter_config: bytes, adapter_model: bytes, shape: ModelShape) -> bytes:
    """The native file: `decoder` `[L, 2, P, H, D]`, in the dtype of the weights file.

    The bytes depend on the two files alone; `shape` only decides whether they fit. Raises
    `UnsafeFormat`; `UnsupportedMethod` for other adapters; `InvalidPrefix` where a file breaks a
    rule or the config lies about the tensor; `IncompatiblePrefix` where they do not fit the model.
    """
    container.refuse_unsafe(adapter_config)
    container.refuse_unsafe(adapter_model)
    config = _read_config(adapter_config, shape)
    tensor = container.read(adapter_model, frozenset({_TENSOR})).tensors[_TENSOR]
    _check_tensor(tensor, config)
    check_values({_TENSOR: tensor})
    described = PrefixMeta(
        method=config.method,
        base=BaseClaim(
            layers=config.layers, kv_heads=config.heads, head_dim=config.width // config.heads
        ),
        provenance=config.provenance,
    )
    data = encode({"decoder": _keys_and_values(tensor, config)}, described)
    check_model(parse(data), shape)
    return data


def _keys_and_values(tensor: RawTensor, config: _Config) -> RawTensor:
    """`[P, 2L*H*D]`, where row 2l holds layer l's keys and 2l + 1 its values, by layer."""
    sizes = (config.tokens, config.layers, 2, config.heads, config.width // config.heads)
    words = tensor.words().reshape(sizes).transpose(1, 2, 0, 3, 4)
    data = memoryview(np.ascontiguousarray(words).tobytes())
    return RawTensor(tensor.dtype, words.shape, data)


def _check_tensor(tensor: RawTensor, config: _Config) -> None:
    if len(tensor.shape) != 2:
        raise InvalidPrefix("shape", f"Tensor {_TENSOR} has to have two dimensions.")
    tokens, width = tensor.shape
    if tokens != config.tokens:
        raise InvalidPrefix(
            "shape",
            f"adapter_config says {config.tokens} virtual tokens, the tensor holds {tokens}.",
        )
    if width != 2 * config.layers * config.width:
        raise InvalidPrefix(
            "shape",
            f"adapter_config says {config.layers} layers of width {config.width}, which makes"
            f" {2 * config.layers * config.width} values per token; the tensor holds {width}.",
        )


def _read_config(raw: bytes, shape: ModelShape) -> _Config:
    content = _load(raw)
    method = _supported(content, shape)
    layers = _size(content, "num_layers")
    heads = _size(content, "num_attention_heads")
    width = _size(content, "token_dim")
    if width % heads:
        raise InvalidPrefix(
            "shape", f"adapter_config's token_dim {width} is no multiple of its {heads} heads."
        )
    return _Config(
        method=method,
        tokens=_size(content, "num_virtual_tokens"),
        layers=layers,
        heads=heads,
        width=width,
        provenance=_provenance(content),
    )


def _load(raw: bytes) -> dict[str, object]:
    if len(raw) > MAX_CONFIG_BYTES:
        raise InvalidPrefix("metadata", f"adapter_config exceeds {MAX_CONFIG_BYTES} bytes.")
    try:
        content = strict_json.loads(raw)
    except strict_json.DuplicateKeyError:
        raise InvalidPrefix("duplicate", "adapter_config names a key twice.") from None
    except ValueError:
        raise InvalidPrefix("metadata", "adapter_config is not valid JSON.") from None
    if not isinstance(content, dict):
        raise InvalidPrefix("metadata", "adapter_config is not a JSON object.")
    return content


def _supported(content: Mapping[str, object], shape: ModelShape) -> str:
    """The adapter's type, if it is one that this converter reads."""
    method = content.get("peft_type")
    if not isinstance(method, str):
        raise InvalidPrefix("metadata", "adapter_config has no peft_type.")
    if method not in _TYPES:
        raise UnsupportedMethod(f"PEFT adapters of type {_plain(method)} are not supported.")
    task = content.get("task_type")
    if task not in {None, "CAUSAL_LM"} if isinstance(task, str | None) else True:
        raise UnsupportedMethod(f"{method} is supported for CAUSAL_LM, not for {_plain(task)}.")
    if shape.family != "causal":
        raise UnsupportedMethod(f"PEFT's {method} is not supported for {shape.family} models.")
    if content.get("modules_to_save") is not None:
        raise UnsupportedMethod("Adapters with modules_to_save are not supported.")
    if content.get("num_transformer_submodules") not in (None, 1):
        raise UnsupportedMethod(f"{method} with num_transformer_submodules is not supported.")
    return method


def _size(content: Mapping[str, object], key: str) -> int:
    value = content.get(key)
    if type(value) is not int or value < 0:
        raise InvalidPrefix("metadata", f"adapter_config needs a positive integer as {key}.")
    if value == 0:
        raise InvalidPrefix("empty", f"adapter_config says {key} is 0.")
    return value


def _provenance(content: Mapping[str, object]) -> dict[str, str]:
    """For people to read; never compared, opened or fetched."""
    known = {
        "base_model": (content.get("base_model_name_or_path"), _MAX_NAME),
        "peft_version": (content.get("peft_version"), _MAX_VERSION),
    }
    texts = {
        key: _plain(value, size) for key, (value, size) in known.items() if isinstance(value, str)
    }
    return {"source": "peft", **texts}


def _plain(value: object, size: int = _MAX_NAME) -> str:
    """Text from the config, short and printable."""
    return "".join(char if char.isprintable() else "?" for char in str(value)[:size])
