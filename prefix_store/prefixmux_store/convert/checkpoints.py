"""Weights files of other programs, as arrays of float32.

PyTorch's files are pickles. They are read here with `weights_only`, by the person who owns them
and on their own machine: a server never imports this module.
"""

from __future__ import annotations

import importlib
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from prefixmux_store import container
from prefixmux_store.errors import InvalidPrefix, UnsafeFormat, UnsupportedMethod

Array: TypeAlias = npt.NDArray[np.float32]


def load_safetensors(path: Path) -> Mapping[str, Array]:
    """Raises `InvalidPrefix`, `UnsafeFormat`."""
    tensors = container.read(path.read_bytes(), None).tensors
    return {name: tensor.floats() for name, tensor in tensors.items()}


def load_torch(path: Path) -> Mapping[str, Array]:
    """Of any container that PyTorch has written, on any device. Raises `UnsafeFormat` for what
    holds more than tensors, `InvalidPrefix` for what is no checkpoint."""
    torch = _torch()
    try:
        with warnings.catch_warnings():
            # What it would say of strange pickles is said below.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UnsafeFormat(
            f"{path.name} holds more than tensors, or none; it was not run."
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, IndexError):
        raise InvalidPrefix("header", f"{path.name} is not a PyTorch checkpoint.") from None
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) and value.is_floating_point()
        for name, value in content.items()
    ):
        raise InvalidPrefix("header", f"{path.name} is not a state_dict of floating-point tensors.")
    return {name: value.float().contiguous().numpy() for name, value in content.items()}


def _torch() -> Any:  # noqa: ANN401
    try:
        return importlib.import_module("torch")
    except ModuleNotFoundError as error:
        message = "Reading PyTorch's files needs torch: pip install 'prefixmux[server]'."
        raise UnsupportedMethod(message) from error
