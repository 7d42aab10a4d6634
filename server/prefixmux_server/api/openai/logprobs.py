"""Log-probabilities as OpenAI's clients read them, in a completion and in a chat.

A token that is only a part of a character has no text: a completion writes its bytes, a chat
tells them beside it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from pydantic import BaseModel

from prefixmux_server.service.generation.likely import Entry, Logprobs
from prefixmux_server.service.text.spelling import Place, Spelling


class CompletionLogprobs(BaseModel):
    """One entry for each token. `top_logprobs` holds the token itself, too; `text_offset` counts
    the characters before it. Nothing predicts a prompt's first token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class LikelyToken(BaseModel):
    """`bytes` are the token's UTF-8."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(LikelyToken):
    """`top_logprobs`: the most likely tokens in its place, the best first."""

    top_logprobs: list[LikelyToken]


class ChatLogprobs(BaseModel):
    content: list[TokenLogprob]
    refusal: None = None


class OutputLogprobs:
    """Of the outputs of one completion, in the order of their tokens."""

    def __init__(self, spelling: Spelling) -> None:
        self._spelling = spelling
        self._places: defaultdict[int, Place] = defaultdict(lambda: Place(spelling))

    def of(self, index: int, told: Logprobs) -> CompletionLogprobs:
        return CompletionLogprobs.model_validate(
            {name: list(column) for name, column in self.columns(index, told).items()}
        )

    def columns(
        self, index: int, told: Logprobs, first: int | None = None
    ) -> Mapping[str, Iterator[object]]:
        """The fields, each item made when it is read. `first` is a token before all of them, which
        nothing predicts."""
        place = self._places[index]
        before = [] if first is None else [first]
        nothing = [None] * len(before)

        def token_ids() -> Iterator[int]:
            return chain(before, (ids[0] for ids, _ in told.rows()))

        return {
            "tokens": map(self._name, token_ids()),
            "token_logprobs": chain(nothing, (values[0] for _, values in told.rows())),
            "top_logprobs": chain(nothing, (self._top(*row) for row in told.rows())),
            "text_offset": map(place.step, token_ids()),
        }

    def _top(self, ids: Iterable[int], values: Iterable[float]) -> dict[str, float]:
        """By name; of several tokens of one name the most likely one."""
        own, *top = zip(map(self._name, ids), values, strict=True)
        found: dict[str, float] = {}
        for name, logprob in (*top, own):
            found.setdefault(name, logprob)
        return found

    def _name(self, token_id: int) -> str:
        spelled = self._spelling.of(token_id)
        try:
            return spelled.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled)


def chat_logprobs(told: Logprobs | None, spelling: Spelling) -> ChatLogprobs | None:
    return None if told is None else ChatLogprobs(content=list(chat_tokens(told, spelling)))


def chat_tokens(told: Logprobs, spelling: Spelling) -> Iterator[TokenLogprob]:
    """Each made when it is read."""

    def likely(entry: Entry) -> dict[str, Any]:
        spelled = list(spelling.of(entry["token_id"]))
        return {"token": entry["token"], "logprob": entry["logprob"], "bytes": spelled}

    for entry in told:
        top = [LikelyToken(**likely(one)) for one in entry["top"]]
        yield TokenLogprob(**likely(entry), top_logprobs=top)
