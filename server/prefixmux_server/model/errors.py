"""Why a model is not served."""

from __future__ import annotations


class UnsupportedModelError(Exception):
    """The model cannot be loaded, or the proof at load time failed; the message names the cause."""
