"""What a caller asks of the generation service, whatever API it came by.

Values are within the closed ranges of the contract already; what depends on the model, the prefix
or the prompt is checked in `limits.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from prefixmux_store.types import JSON

TokenInput: TypeAlias = str | tuple[int, ...]


@dataclass(frozen=True)
class PartName:
    """A stored prefix as a caller names it. `version` None: the task's active one."""

    task_id: str
    version: int | None = None


@dataclass(frozen=True)
class GenerationRequest:
    """Runs with the prefix of `task_id` (`version` None: the active one), with those of `compose`
    in their order, or, without either, with the bare model.

    `decoder_input` None: nothing behind the decoder's start token, BOS behind an infix.
    `parameters` are those that were given, by their names in the contract; `usual` are those that
    an API has where neither the request nor the version says anything. `request_id` is the
    caller's own name for it, of no meaning here. `rows`: so many requests, this one among them,
    are answered together.
    """

    input: TokenInput
    task_id: str | None = None
    version: int | None = None
    compose: tuple[PartName, ...] = ()
    decoder_input: TokenInput | None = None
    parameters: Mapping[str, JSON] = field(default_factory=dict)
    usual: Mapping[str, JSON] = field(default_factory=dict)
    request_id: str = ""
    rows: int = 1

    @property
    def timeout_s(self) -> float | None:
        """From arrival, if the caller set one."""
        seconds = self.parameters.get("timeout_s")
        return float(seconds) if isinstance(seconds, int | float) else None
