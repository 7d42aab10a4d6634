"""Positions of each token, for models that only count them from the start of a sequence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

_KEYWORD = "position_ids"


class PositionSetter:
    """Sets the positions that a stack's tables of positions are asked for, for one call at a time.

    Found by the keyword that they take; a stack without positions of its own has none.
    """

    def __init__(self, stack: nn.Module) -> None:
        self._current: Tensor | None = None
        for module in stack.modules():
            if module is not stack and _takes_positions(module):
                module.register_forward_pre_hook(self._set, with_kwargs=True)

    @contextmanager
    def positions(self, values: Sequence[int], device: torch.device) -> Iterator[None]:
        self._current = torch.tensor(values, dtype=torch.long, device=device)
        try:
            yield
        finally:
            self._current = None

    def _set(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        return None if self._current is None else (args, kwargs | {_KEYWORD: self._current})


def _takes_positions(module: nn.Module) -> bool:
    return _KEYWORD in signature(module.forward).parameters
