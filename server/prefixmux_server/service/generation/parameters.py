"""The parameters of one generation: what was asked for, over what the version stores.

Owns the contract's defaults; whether values fit a model and a prompt is `limits.py`'s question.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefixmux_server.engine.params import EarlyStopping
from prefixmux_store.types import JSON

USUAL_NEW_TOKENS = 128
EARLY_STOPPING: Mapping[object, EarlyStopping] = {True: "yes", False: "no", "never": "never"}


@dataclass(frozen=True)
class Parameters:
    """`max_new_tokens` None: `usual_new_tokens`, or as many as fit. `seed` None: the server draws
    one. `timeout_s` is in seconds from arrival. `num_beams` 1 is no beam search: what is only
    for beams then says nothing. With beams `n` and `num_return` are one thing."""

    max_new_tokens: int | None = None
    usual_new_tokens: int = USUAL_NEW_TOKENS
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
    no_repeat_ngram_size: int = 0
    n: int = 1
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    num_beams: int = 1
    num_return: int = 1
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = "no"
    beam_length_includes_prompt: bool = False

    @property
    def searches(self) -> bool:
        """Whether beams are to be searched."""
        return self.num_beams > 1

    @property
    def rows(self) -> int:
        """Of the batch, that the request takes."""
        return self.num_beams if self.searches else self.n


def settle(
    asked: Mapping[str, JSON], stored: Mapping[str, JSON], usual: Mapping[str, JSON] | None = None
) -> Parameters:
    """All by the contract's names, checked by its schema; what is asked for wins over what is
    stored, and that over what is `usual` where the request came from.

    Only an asked `max_new_tokens` has to fit; else fewer are generated where there is less room.
    """
    chosen = {**stored, **asked}
    values: dict[str, Any] = {**(usual or {}), **chosen}
    if "max_new_tokens" in values and "max_new_tokens" not in asked:
        values["usual_new_tokens"] = values.pop("max_new_tokens")
    if values.get("num_beams", 1) > 1 and "temperature" not in chosen:
        # What is usual for sampling says nothing about a search.
        values.pop("temperature", None)
    for name in ("stop", "stop_token_ids"):
        values[name] = tuple(values.get(name, ()))
    if values.get("num_beams", 1) > 1 and "num_return" not in values:
        values["num_return"] = values.get("n", 1)
    values["early_stopping"] = EARLY_STOPPING[values.get("early_stopping", False)]
    return Parameters(**values)
