"""Streamed text against what the tokenizer says of all tokens at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from service.codecs import CODECS, byte_level, llama, vocabulary
from service.fakes import EOS, ids, likely

from prefixmux_server.engine.messages import TokenDelta
from prefixmux_server.service.generation.answer import TokenEvent
from prefixmux_server.service.generation.parameters import Parameters
from prefixmux_server.service.generation.track import Track
from prefixmux_server.service.text.text import TextCodec

BUILT = {name: build() for name, build in CODECS.items()}
STOPS = ("the", " the", "s.", "é", "日本", " ", "cat", "a a", ".", "!", "ll", "\n", "ea", "本é")
STEPS = st.lists(st.lists(st.integers(0, 290), min_size=1, max_size=3), max_size=20)


@dataclass(frozen=True)
class Told:
    """One output, streamed to its end."""

    track: Track
    events: list[TokenEvent]

    @property
    def texts(self) -> list[str]:
        return [event.text or "" for event in self.events]


def streamed(codec: TextCodec, steps: Sequence[Sequence[int]], parameters: Parameters) -> Told:
    track, events = Track(0, codec, parameters, streamed=True), []
    for step in steps:
        logprobs = () if parameters.logprobs is None else tuple(likely(id, 1) for id in step)
        events.append(track.take(TokenDelta("r", tuple(step), 0, logprobs)))
    events.append(track.end())
    return Told(track, [event for event in events if event is not None])


def cut(
    codec: TextCodec, token_ids: Sequence[int], parameters: Parameters
) -> tuple[str, list[int], str | None]:
    """The slow way: after each token, is there a stop string in the text of all of them that was
    not there before stop strings were honoured?"""
    passed = 0
    for count in range(1, len(token_ids) + 1):
        text = codec.decode(token_ids[:count])
        if count < parameters.min_new_tokens:
            passed = len(text.rstrip("\ufffd"))
            continue
        found = [
            (at, order)
            for order, stop in enumerate(parameters.stop)
            if (at := text.find(stop, max(0, passed - len(stop) + 1))) >= 0
        ]
        if found:
            at, order = min(found)
            return text[:at], list(token_ids[:count]), parameters.stop[order]
    return codec.decode(token_ids), list(token_ids), None


@pytest.mark.parametrize("name", CODECS)
@given(steps=STEPS, stops=st.lists(st.sampled_from(STOPS), max_size=3, unique=True))
def test_what_is_streamed_joins_to_what_is_answered(
    name: str, steps: list[list[int]], stops: list[str]
) -> None:
    codec, parameters = BUILT[name], Parameters(stop=tuple(stops))
    size = vocabulary(codec)
    steps = [[id % size for id in step] for step in steps]
    text, token_ids, stop = cut(codec, [id for step in steps for id in step], parameters)
    told = streamed(codec, steps, parameters)
    assert (told.track.text(), told.track.token_ids, told.track.stop) == (text, token_ids, stop)
    assert "".join(told.texts) == text
    assert [id for event in told.events for id in event.token_ids] == token_ids
    assert not any(other in text for other in stops)
    whole = Track(0, codec, parameters, streamed=False)
    for step in steps:
        whole.take(TokenDelta("r", tuple(step)))
    whole.end()
    assert (whole.text(), whole.token_ids, whole.stop) == (text, token_ids, stop)


@pytest.mark.parametrize("name", ["byte_level", "llama", "bert"])
@given(steps=STEPS, stop=st.sampled_from(STOPS), least=st.integers(0, 12))
def test_a_stop_string_that_ends_too_early_is_text(
    name: str, steps: list[list[int]], stop: str, least: int
) -> None:
    codec, parameters = BUILT[name], Parameters(stop=(stop,), min_new_tokens=least)
    size = vocabulary(codec)
    steps = [[id % size for id in step] for step in steps]
    text, token_ids, found = cut(codec, [id for step in steps for id in step], parameters)
    told = streamed(codec, steps, parameters)
    assert (told.track.text(), told.track.token_ids, told.track.stop) == (text, token_ids, found)
    assert "".join(told.texts) == text


def test_a_token_waits_with_its_text() -> None:
    told = streamed(byte_level(), [[id] for id in ids("a€.b")], Parameters())
    assert told.texts == ["a", "€", ".", "b"]
    assert [len(event.token_ids) for event in told.events] == [1, 3, 1, 1]


def test_a_token_without_text_does_not_wait() -> None:
    told = streamed(byte_level(), [ids("a"), [EOS], [EOS]], Parameters())
    assert [(event.text, event.token_ids) for event in told.events] == [
        ("a", ids("a")),
        ("", [EOS]),
        ("", [EOS]),
    ]


def test_the_beginning_of_a_stop_string_waits_and_its_end_says_nothing() -> None:
    told = streamed(byte_level(), [[id] for id in ids("xENyEND more")], Parameters(stop=("END",)))
    assert told.texts == ["x", "ENy", ""]
    assert told.track.token_ids == ids("xENyEND")
    assert told.events[-1].token_ids == ids("END")


def test_a_stop_string_of_byte_tokens_ends_at_its_last_byte() -> None:
    codec = llama()
    letter = codec.plain("a")[-1]
    newline = 2 + ord("\n")
    told = streamed(codec, [[letter], [newline], [letter]], Parameters(stop=("\n",)))
    assert (told.track.token_ids, told.texts) == ([letter, newline], ["a", ""])


def test_logprobs_go_with_their_tokens() -> None:
    steps = [ids("a"), *([id] for id in ids("€")), ids("b.c")]
    told = streamed(byte_level(), steps, Parameters(logprobs=1, stop=(".",)))
    for event in told.events:
        assert event.logprobs is not None
        assert [entry["token_id"] for entry in event.logprobs] == event.token_ids
    joined = [entry for event in told.events for entry in event.logprobs or ()]
    assert told.track.logprobs is not None
    assert joined == list(told.track.logprobs)
    assert [entry["token"] for entry in joined] == ["a", "\ufffd", "\ufffd", "\ufffd", "b", "."]


def test_without_a_tokenizer_there_are_ids_alone() -> None:
    track = Track(0, None, Parameters(logprobs=0), streamed=True)
    event = track.take(TokenDelta("r", (5,), 0, (likely(5, 0),)))
    assert event is not None and event.logprobs is not None
    assert list(event.logprobs) == [{"token_id": 5, "token": None, "logprob": -0.5, "top": []}]
    assert (event.text, event.token_ids) == (None, [5])
    assert (track.end(), track.text()) == (None, None)
