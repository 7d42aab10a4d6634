"""Log-probabilities with the names they have on the wire, kept as plain numbers until then.

Written out an entry takes some hundred bytes, as numbers twelve; an answer may have a million.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self, overload

from prefixmux_server.engine.messages import TokenLogprobs
from prefixmux_server.errors import InternalError
from prefixmux_server.service.text.text import TextCodec

Entry = dict[str, Any]


class Logprobs(Sequence[Entry]):
    """Of tokens in their order, each beside as many of the most likely ones.

    An entry is made when it is looked at: `token` is a token's own text, None where the model has
    no tokenizer.
    """

    def __init__(self, codec: TextCodec | None) -> None:
        self.codec = codec
        self._ids = array("i")
        self._values = array("d")
        self._width = 1

    @property
    def numbers(self) -> int:
        """Tokens and likely ones together."""
        return len(self._ids)

    def take(self, told: Iterable[TokenLogprobs]) -> None:
        """Raises `InternalError` for a token with more or fewer likely ones than the others."""
        for one in told:
            width = 1 + len(one.top_ids)
            if not self._ids:
                self._width = width
            if width != self._width or width != 1 + len(one.top_logprobs):
                raise InternalError("The engine told of another number of likely tokens.")
            self._ids.append(one.token_id)
            self._ids.extend(one.top_ids)
            self._values.append(one.logprob)
            self._values.extend(one.top_logprobs)

    def rows(self) -> Iterator[tuple[Sequence[int], Sequence[float]]]:
        """Ids and log-probabilities of each token: its own and then the likely ones'."""
        ids, values, width = self._ids, self._values, self._width
        for start in range(0, len(ids), width):
            yield ids[start : start + width], values[start : start + width]

    def told(self) -> list[Entry | None]:
        """As it stands on the wire."""
        return list(self)

    @staticmethod
    def joined(parts: Sequence[Logprobs]) -> Logprobs:
        """Those of each part, at least one, behind those of the parts before it."""
        made = parts[0][:]
        for part in parts[1:]:
            if not made._ids:
                made._width = part._width
            made._ids += part._ids
            made._values += part._values
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Logprobs) and self.told() == other.told()

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self._ids) // self._width

    @overload
    def __getitem__(self, place: int) -> Entry: ...

    @overload
    def __getitem__(self, place: slice) -> Self: ...

    def __getitem__(self, place: int | slice) -> Entry | Self:
        width = self._width
        if isinstance(place, int):
            start = range(len(self))[place] * width
            cells = slice(start, start + width)
            own, *top = map(self._entry, self._ids[cells], self._values[cells])
            return {**own, "top": top}
        start, stop, step = place.indices(len(self))
        if step != 1:
            raise ValueError("log-probabilities are cut in their order")
        cells = slice(start * width, max(start, stop) * width)
        return self._of(self._ids[cells], self._values[cells], width)

    def _of(self, ids: array[int], values: array[float], width: int) -> Self:
        made = type(self)(self.codec)
        made._ids, made._values, made._width = ids, values, width
        return made

    def _entry(self, token_id: int, logprob: float) -> Entry:
        token = None if self.codec is None else self.codec.token_text(token_id)
        return {"token_id": token_id, "token": token, "logprob": logprob}


class PromptLogprobs(Logprobs):
    """Of a prompt's tokens but the first, which nothing predicts: on the wire it is null."""

    def told(self) -> list[Entry | None]:
        return [None, *self]
