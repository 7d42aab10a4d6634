"""The tokenizer of the resident model, built once for each that the engine announces."""

from __future__ import annotations

import threading

from prefixmux_server.engine.messages import Ready
from prefixmux_server.engine.model_info import TokenizerInfo
from prefixmux_server.service.text.text import TextCodec


class Codecs:
    """Thread-safe; keeps the one of the engine's last `Ready`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: tuple[TokenizerInfo, TextCodec] | None = None

    def of(self, ready: Ready) -> TextCodec | None:
        """None where the model has no fast tokenizer."""
        if ready.tokenizer is None:
            return None
        with self._lock:
            if self._last is None or self._last[0] is not ready.tokenizer:
                self._last = (ready.tokenizer, TextCodec(ready.tokenizer))
            return self._last[1]
