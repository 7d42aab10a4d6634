"""What an upload is, in each of its forms, before the store sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from prefixmux_server.service.generation.request import PartName
from prefixmux_store.types import JSON


@dataclass(frozen=True)
class NativeFile:
    """A native file and, if the caller gave one, the `sha256:<hex>` it should have."""

    data: bytes
    digest: str | None = None


@dataclass(frozen=True)
class PeftFiles:
    """PEFT's two files, as their bytes."""

    adapter_config: bytes
    adapter_model: bytes


@dataclass(frozen=True)
class PromptText:
    """Text to stand before every input; `param` is the field that it was made from."""

    text: str
    param: str = "text"


# What becomes a file of its own.
Filed: TypeAlias = NativeFile | PeftFiles | PromptText


@dataclass(frozen=True)
class Composition:
    """Stored prefixes, to be served one behind another."""

    parts: tuple[PartName, ...]


@dataclass(frozen=True)
class Upload:
    """`create_only`: refuse if the task exists. `task_index`: which task of a file of several.

    `template` (text around `{input}`) and `parameters` (by the contract's names, checked by its
    schema) hold for requests that say nothing themselves.
    """

    task_id: str
    content: Filed | Composition
    activate: bool = True
    description: str | None = None
    create_only: bool = False
    task_index: int | None = None
    template: str | None = None
    parameters: Mapping[str, JSON] = field(default_factory=dict)
