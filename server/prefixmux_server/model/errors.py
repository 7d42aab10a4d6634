"""Why a model is not served."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UnsupportedModelError(Exception):
    """The model cannot be loaded, or the proof at load time failed; the message names the cause."""


@contextmanager
def runs_here(name: str) -> Iterator[None]:
    """What the code of a model of this name raises when it is fed as we do: it is not supported."""
    try:
        yield
    except UnsupportedModelError:
        raise
    except (TypeError, ValueError, RuntimeError, AttributeError, LookupError) as error:
        raise UnsupportedModelError(
            f"{name} cannot run a ragged batch: {type(error).__name__}"
        ) from error
