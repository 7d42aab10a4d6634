"""The command line: a thin layer over the SDK, and the door to the server."""

from __future__ import annotations

from prefixmux.cli.app import build_app, main

__all__ = ["build_app", "main"]
