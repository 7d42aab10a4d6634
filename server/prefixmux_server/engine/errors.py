"""What can go wrong between the HTTP process and the engine.

Exception
|- EngineStartError     the engine cannot serve this model with these settings
|- EngineUnavailable    the engine is down or restarting
`- Overloaded           too many requests wait already
"""

from __future__ import annotations


class EngineStartError(Exception):
    """`code` as in the HTTP contract, or `unsupported_model`; `message` says what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class EngineUnavailable(Exception):
    """No engine serves at the moment."""


class Overloaded(Exception):
    """The queue is full."""
