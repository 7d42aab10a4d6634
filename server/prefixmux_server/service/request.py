"""What a caller asks of the generation service, whatever API it came by.

Values are within the closed ranges of the contract already; what depends on the model, the prefix
or the prompt is checked in `limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Parameters:
    """`max_new_tokens` None: as many as fit, at most 128. `seed` None: the server draws one.
    `timeout_s` is in seconds from arrival."""

    max_new_tokens: int | None = None
    min_new_tokens: int = 0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    timeout_s: float | None = None


@dataclass(frozen=True)
class GenerationRequest:
    """`task_id` None: the bare model. `version` None: the task's active one."""

    input: str | tuple[int, ...]
    task_id: str | None = None
    version: int | None = None
    parameters: Parameters = field(default_factory=Parameters)
