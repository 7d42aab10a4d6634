"""PEFT's adapter_config.json: strict JSON from anybody, and which adapters are served.

Nothing that it names is ever opened, fetched or imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from prefixmux_store.convert.config_files import MAX_TEXT, load_object, plain, size
from prefixmux_store.errors import InvalidPrefix, UnsupportedMethod
from prefixmux_store.meta import EMBEDDING_METHODS

NAME = "adapter_config"
KV_METHODS = frozenset({"PREFIX_TUNING", "CARTRIDGE"})
_TASK_TYPES = {"causal": (None, "CAUSAL_LM"), "seq2seq": ("SEQ_2_SEQ_LM",)}
# What PEFT fills in for null: prompts for the encoder and the decoder, of which generation uses
# the encoder's, or keys and values that it doubles, of which the decoder gets half.
_SUBMODULES = {"causal": 1, "seq2seq": 2}
_MAX_VERSION = 40


@dataclass(frozen=True)
class PeftConfig:
    """`submodules` is how many prompts of `num_virtual_tokens` an embedding file holds."""

    method: str
    submodules: int
    provenance: Mapping[str, str]
    _content: Mapping[str, object] = field(repr=False)

    def size(self, key: str) -> int:
        """A number that the method needs. Raises `InvalidPrefix`."""
        return size(self._content, key, NAME)


def read_config(raw: bytes, family: str) -> PeftConfig:
    """Raises `InvalidPrefix`; `UnsupportedMethod` for adapters that models of the family are not
    served with."""
    content = load_object(raw, NAME)
    method = content.get("peft_type")
    if not isinstance(method, str):
        raise InvalidPrefix("metadata", "adapter_config has no peft_type.")
    if method not in KV_METHODS | EMBEDDING_METHODS:
        raise UnsupportedMethod(f"PEFT adapters of type {plain(method)} are not supported.")
    _check_task(method, content.get("task_type"), family)
    if content.get("modules_to_save") is not None:
        raise UnsupportedMethod("Adapters with modules_to_save are not supported.")
    submodules = _submodules(method, content.get("num_transformer_submodules"), family)
    return PeftConfig(method, submodules, _provenance(content), content)


def _check_task(method: str, task: object, family: str) -> None:
    served = _TASK_TYPES[family]
    if not isinstance(task, str | None) or task not in served:
        raise UnsupportedMethod(
            f"{method} is supported for {served[-1]} on this model, not for {plain(task)}."
        )


def _submodules(method: str, value: object, family: str) -> int:
    usual = _SUBMODULES[family]
    count = usual if value is None else value
    if type(count) is int and count == usual:
        return count
    if type(count) is int and count == 1 and method in EMBEDDING_METHODS:
        return count
    raise UnsupportedMethod(
        f"{method} with num_transformer_submodules {plain(value, 20)} is not supported:"
        f" this model takes {usual}."
    )


def _provenance(content: Mapping[str, object]) -> dict[str, str]:
    """For people to read; never compared. Fits into a native file, even if all is escaped."""
    known = {
        "base_model": (content.get("base_model_name_or_path"), MAX_TEXT),
        "peft_version": (content.get("peft_version"), _MAX_VERSION),
    }
    texts = {
        key: plain(value, most) for key, (value, most) in known.items() if isinstance(value, str)
    }
    return {"source": "peft", **texts}
