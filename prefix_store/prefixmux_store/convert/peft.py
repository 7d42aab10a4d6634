"""PEFT's two files (adapter_config.json, adapter_model.safetensors) to a native prefix file.

Serves the types whose saved form is final: PREFIX_TUNING (a projection is applied already when
PEFT saves) and CARTRIDGE, which hold keys and values, and PROMPT_TUNING, P_TUNING and one task of
MULTITASK_PROMPT_TUNING, which hold embeddings. What PEFT does with them at run time is resolved
here, so that a native file means the same on every model of its family. Both files are hostile
bytes: strict JSON, and the native file's own rules for tensors.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from prefixmux_store import container
from prefixmux_store.convert.peft_config import KV_METHODS, PeftConfig, read_config
from prefixmux_store.errors import IncompatiblePrefix, InvalidPrefix, InvalidRequest
from prefixmux_store.format import BaseClaim, PrefixMeta, RawTensor, encode, parse
from prefixmux_store.tensors import check_values
from prefixmux_store.validate import ModelShape, check_model

PROMPT = "prompt_embeddings"
COLUMNS, ROWS = "prefix_task_cols", "prefix_task_rows"


def from_peft(
    adapter_config: bytes,
    adapter_model: bytes,
    shape: ModelShape,
    task_index: int | None = None,
) -> bytes:
    """The native file, in the dtype of the weights file (one task of several: F32).

    Its bytes depend on the arguments before `shape` and on `task_index`, and for keys and values
    of an encoder-decoder model on its number of decoder layers; otherwise `shape` only decides
    whether they fit. `task_index` says which task of a MULTITASK_PROMPT_TUNING file. Raises
    `UnsafeFormat`; `UnsupportedMethod` for other adapters; `InvalidPrefix` where a file breaks a
    rule or the config lies about the tensors; `InvalidRequest` for a `task_index` that is missing,
    beyond the file's tasks, or of no use; `IncompatiblePrefix` where they do not fit the model.
    """
    container.refuse_unsafe(adapter_config)
    container.refuse_unsafe(adapter_model)
    config = read_config(adapter_config, shape.family)
    multitask = config.method == "MULTITASK_PROMPT_TUNING"
    if task_index is not None and not multitask:
        raise InvalidRequest("The file holds one task; leave task_index out.", param="task_index")
    if config.method in KV_METHODS:
        data = _key_value_file(config, adapter_model, shape)
    elif multitask:
        data = _multitask_file(config, adapter_model, task_index)
    else:
        data = _embedding_file(config, adapter_model)
    check_model(parse(data), shape)
    return data


def _key_value_file(config: PeftConfig, adapter_model: bytes, shape: ModelShape) -> bytes:
    layers, heads = config.size("num_layers"), config.size("num_attention_heads")
    width, tokens = config.size("token_dim"), config.size("num_virtual_tokens")
    if width % heads:
        raise InvalidPrefix(
            "shape", f"adapter_config's token_dim {width} is no multiple of its {heads} heads."
        )
    tensor = _tensors(adapter_model, {PROMPT: 2})[PROMPT]
    _check_rows(tensor, tokens, f"{tokens} virtual tokens")
    _check_columns(tensor, 2 * layers * width, f"{layers} layers of width {width}")
    # As PEFT views it: row 2s of a token holds the keys of slot s and 2s + 1 its values.
    words = tensor.words().reshape(tokens, layers, 2, heads, width // heads)
    slots = _slots(layers, shape)
    words = np.ascontiguousarray(words[:, slots].transpose(1, 2, 0, 3, 4))
    base = BaseClaim(layers=len(slots), kv_heads=heads, head_dim=width // heads)
    decoder = RawTensor(tensor.dtype, words.shape, memoryview(words.tobytes()))
    described = PrefixMeta(method=config.method, base=base, provenance=config.provenance)
    return encode({"decoder": decoder}, described)


def _slots(layers: int, shape: ModelShape) -> list[int]:
    """Which of the file's slots each layer gets.

    For encoder-decoder models PEFT doubles the slots for two submodules and hands each decoder
    layer the first half of every other pair, so that slots repeat and the rest is never used.
    """
    if shape.family == "causal":
        return list(range(layers))
    wanted = shape.sites["decoder"].layers
    if layers < wanted:
        raise IncompatiblePrefix(
            f"The prefix does not fit the model: layers {layers} in the prefix, {wanted} in the"
            " model's decoder."
        )
    return [2 * layer % layers for layer in range(wanted)]


def _embedding_file(config: PeftConfig, adapter_model: bytes) -> bytes:
    tensor = _prompt(config, _tensors(adapter_model, {PROMPT: 2}))
    # The rest is for the decoder, where generation does not use it.
    words = tensor.words()[: config.size("num_virtual_tokens")]
    first = RawTensor(tensor.dtype, words.shape, memoryview(words.tobytes()))
    described = PrefixMeta(method=config.method, provenance=config.provenance)
    return encode({"embeddings": first}, described)


def _multitask_file(config: PeftConfig, adapter_model: bytes, task_index: int | None) -> bytes:
    tensors = _tensors(adapter_model, {PROMPT: 2, COLUMNS: 3, ROWS: 3})
    prompt = _prompt(config, tensors)
    tasks, ranks = config.size("num_tasks"), config.size("num_ranks")
    rows, width = prompt.shape
    for name, sizes in {COLUMNS: (tasks, rows, ranks), ROWS: (tasks, ranks, width)}.items():
        if tensors[name].shape != sizes:
            raise InvalidPrefix("shape", f"adapter_config's sizes make tensor {name} {sizes}.")
    if task_index is None or not 0 <= task_index < tasks:
        raise InvalidRequest(
            f"The file holds {tasks} tasks: choose one with task_index, 0 to {tasks - 1}.",
            param="task_index",
        )
    embeddings = prompt.floats() * _outer(
        tensors[COLUMNS].floats()[task_index], tensors[ROWS].floats()[task_index]
    )
    first = np.ascontiguousarray(embeddings[: config.size("num_virtual_tokens")])
    described = PrefixMeta(
        method=config.method, provenance={**config.provenance, "task_index": task_index}
    )
    made = RawTensor("F32", first.shape, memoryview(first.tobytes()))
    return encode({"embeddings": made}, described)


def _outer(
    columns: npt.NDArray[np.float32], rows: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """columns @ rows, one rank after another: the same bits on every machine, which a matrix
    product does not promise."""
    total: npt.NDArray[np.float32] = columns[:, :1] * rows[0]
    for rank in range(1, rows.shape[0]):
        total += columns[:, rank : rank + 1] * rows[rank]
    return total


def _prompt(config: PeftConfig, tensors: Mapping[str, RawTensor]) -> RawTensor:
    tokens, width = config.size("num_virtual_tokens"), config.size("token_dim")
    prompt = tensors[PROMPT]
    said = f"{config.submodules} x {tokens} virtual tokens"
    _check_rows(prompt, config.submodules * tokens, said)
    _check_columns(prompt, width, f"token_dim {width}")
    return prompt


def _tensors(adapter_model: bytes, dimensions: Mapping[str, int]) -> Mapping[str, RawTensor]:
    """Exactly these tensors, finite. Raises `InvalidPrefix`."""
    tensors = container.read(adapter_model, frozenset(dimensions)).tensors
    for name, count in dimensions.items():
        if name not in tensors:
            raise InvalidPrefix("names", f"The file needs a tensor {name}.")
        if len(tensors[name].shape) != count:
            raise InvalidPrefix("shape", f"Tensor {name} has to have {count} dimensions.")
    check_values(tensors)
    return tensors


def _check_rows(tensor: RawTensor, rows: int, said: str) -> None:
    if tensor.shape[0] != rows:
        held = tensor.shape[0]
        raise InvalidPrefix("shape", f"adapter_config says {said}; the tensor holds {held}.")


def _check_columns(tensor: RawTensor, columns: int, said: str) -> None:
    if tensor.shape[1] != columns:
        raise InvalidPrefix(
            "shape",
            f"adapter_config says {said}, which makes {columns} values per token;"
            f" the tensor holds {tensor.shape[1]}.",
        )
