"""What an upload is, in each of its forms, before the store sees it."""

from __future__ import annotations

from dataclasses import dataclass


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
class Upload:
    """`create_only`: refuse if the task exists. `task_index`: which task of a file of several."""

    task_id: str
    content: NativeFile | PeftFiles
    activate: bool = True
    description: str | None = None
    create_only: bool = False
    task_index: int | None = None
