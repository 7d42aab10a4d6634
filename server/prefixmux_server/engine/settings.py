"""What the engine process is told as it starts. Knows nothing of the HTTP process's settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class EngineSettings:
    """All that the engine process is told at start; sizes in tokens or bytes, None = derived.

    `layout` is how KV memory is organised: rows on a CPU, slots on a GPU unless said otherwise.
    """

    model: str
    store: str
    device: str = "auto"
    dtype: str = "auto"
    max_batch_rows: int = 64
    max_batch_tokens: int = 2048
    max_waiting: int = 1024
    kv_tokens: int | None = None
    prefix_host_bytes: int | None = None
    prefix_device_bytes: int | None = None
    max_prefix_tokens: int = 1024
    threads: int | None = None
    layout: Literal["auto", "rows", "slots"] = "auto"
