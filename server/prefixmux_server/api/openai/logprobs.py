"""Log-probabilities as OpenAI's clients read them, in a completion and in a chat.

A token that is only a part of a character has no text: a completion writes its bytes, a chat
tells them beside it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from prefixmux_server.service.spelling import Place, Spelling

# A token with its log-probability and the most likely ones, as in an `Answer`.
Entry = Mapping[str, Any]


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

    def of(
        self, index: int, entries: Sequence[Entry], first: int | None = None
    ) -> CompletionLogprobs:
        """`first` is a token before all of them, which nothing predicts."""
        place = self._places[index]
        token_ids = [entry["token_id"] for entry in entries]
        told = [entry["logprob"] for entry in entries]
        top = [self._top(entry) for entry in entries]
        before = [] if first is None else [first]
        nothing = [None] * len(before)
        return CompletionLogprobs(
            tokens=[self._name(token_id) for token_id in (*before, *token_ids)],
            token_logprobs=[*nothing, *told],
            top_logprobs=[*nothing, *top],
            text_offset=[place.step(token_id) for token_id in (*before, *token_ids)],
        )

    def _top(self, entry: Entry) -> dict[str, float]:
        """By name; of several tokens of one name the most likely one."""
        found: dict[str, float] = {}
        for likely in (*entry["top"], entry):
            found.setdefault(self._name(likely["token_id"]), likely["logprob"])
        return found

    def _name(self, token_id: int) -> str:
        spelled = self._spelling.of(token_id)
        try:
            return spelled.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled)


def chat_logprobs(entries: Sequence[Entry] | None, spelling: Spelling) -> ChatLogprobs | None:
    if entries is None:
        return None

    def likely(entry: Entry) -> dict[str, Any]:
        spelled = list(spelling.of(entry["token_id"]))
        return {"token": entry["token"], "logprob": entry["logprob"], "bytes": spelled}

    return ChatLogprobs(
        content=[
            TokenLogprob(
                **likely(entry),
                top_logprobs=[LikelyToken(**likely(one)) for one in entry["top"]],
            )
            for entry in entries
        ]
    )
