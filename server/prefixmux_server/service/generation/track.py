"""One output of a generation as its tokens come: their text, and where a stop string ends them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prefixmux_server.engine.messages import TokenDelta
from prefixmux_server.service.generation.answer import TokenEvent
from prefixmux_server.service.generation.likely import Logprobs
from prefixmux_server.service.generation.parameters import Parameters
from prefixmux_server.service.text.detokenizer import Detokenizer
from prefixmux_server.service.text.stops import StopFinder
from prefixmux_server.service.text.text import TextCodec


class Track:
    """Reads the text along only where it is needed: to stream it, or to find a stop string.

    `stop` is the stop string that ended the output; tokens behind it are dropped.
    """

    def __init__(
        self, index: int, codec: TextCodec | None, parameters: Parameters, *, streamed: bool
    ) -> None:
        self.index = index
        self.token_ids: list[int] = []
        self.logprobs = None if parameters.logprobs is None else Logprobs(codec)
        self._codec = codec
        self._least = parameters.min_new_tokens
        self._stops = bool(parameters.stop)
        reads = streamed or self._stops
        self._detokenizer = Detokenizer(codec) if codec is not None and reads else None
        self._finder = StopFinder(parameters.stop)
        self._pieces: list[str] = []
        self._told = 0
        # Characters that are not pushed yet, and were there before stop strings were honoured.
        self._passed = 0

    @property
    def stop(self) -> str | None:
        return self._finder.found

    def take(self, delta: TokenDelta) -> TokenEvent | None:
        """What can be told now, if anything; nothing more once a stop string was found."""
        if self.stop is not None:
            return None
        before = len(self.token_ids)
        text = "".join(self._read_all(delta.token_ids))
        taken = len(self.token_ids) - before
        if self.logprobs is not None:
            self.logprobs.take(delta.logprobs[:taken])
        if text or not self._holding:
            return self._event(text)
        return None

    def end(self) -> TokenEvent | None:
        """What was held back, if anything."""
        text = ""
        if self._detokenizer is not None and self.stop is None:
            text = self._push(self._detokenizer.end()) + self._finder.end()
        return self._event(text) if text or self._told < len(self.token_ids) else None

    def text(self) -> str | None:
        """Of the whole output, after `end`."""
        if self._codec is None:
            return None
        if self._detokenizer is None:
            return self._codec.decode(self.token_ids)
        return "".join(self._pieces)

    @property
    def _holding(self) -> bool:
        held = self._detokenizer is not None and self._detokenizer.holding
        return self._finder.holding or held

    def _read_all(self, token_ids: Iterable[int]) -> Iterator[str]:
        """Up to the one that completes a stop string."""
        for token_id in token_ids:
            self.token_ids.append(token_id)
            yield self._read(token_id)
            if self._finder.found is not None:
                return

    def _read(self, token_id: int) -> str:
        """Text that waits for its end is looked at as if that were now: so it would be."""
        reader = self._detokenizer
        if reader is None:
            return ""
        piece, honoured = reader.push(token_id), len(self.token_ids) >= self._least
        if not honoured:
            self._passed = len(piece)
        text = self._push(piece)
        if not self._stops or not (ahead := reader.ahead()):
            return text
        if not honoured:
            self._passed = len(ahead)
        elif self._finder.finds(ahead, passed=self._passed):
            text += self._push(reader.end())
        return text

    def _push(self, piece: str) -> str:
        if not piece:
            return ""
        passed, self._passed = self._passed, 0
        return self._finder.push(piece, passed=passed)

    def _event(self, text: str) -> TokenEvent:
        told, self._told = self._told, len(self.token_ids)
        self._pieces.append(text)
        return TokenEvent(
            self.index,
            None if self._codec is None else text,
            self.token_ids[told:],
            None if self.logprobs is None else self.logprobs[told:],
        )
