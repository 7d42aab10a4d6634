"""The engine's own account of batching: what each step held. Knows nothing of what was said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class RowRecord:
    """One row of one step: which request it served and how many tokens it ran.

    `encoder_tokens` are those of its encoder pass, in the one step that has it.
    """

    id: str
    phase: Literal["prefill", "decode"]
    tokens: int
    prefix_tokens: int
    encoder_tokens: int = 0


@dataclass(frozen=True)
class StepRecord:
    """What one forward pass held: the engine's own account of batching.

    `started` is in seconds of CLOCK_MONOTONIC. `kv_tokens` are those of KV memory that are taken,
    `host_bytes` and `device_bytes` those of loaded prefixes.
    """

    step: int
    rows: tuple[RowRecord, ...]
    waiting: int
    seconds: float
    started: float = 0.0
    kv_tokens: int = 0
    host_bytes: int = 0
    device_bytes: int = 0
