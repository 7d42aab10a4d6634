"""The codec: what goes in comes out, and nothing else ever does."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefixmux_server.engine.messages import (
    Abort,
    Alive,
    EngineCommand,
    EngineEvent,
    Pin,
    Ready,
    Shutdown,
    StartFailed,
    StepOutput,
    Submit,
)
from prefixmux_server.engine.params import SamplingParams
from prefixmux_server.engine.pipes.process import Start
from prefixmux_server.engine.pipes.schema import WireError
from prefixmux_server.engine.pipes.wire import HEADER, Codec, FrameReader, commands, events

# Whatever JSON can hold; text may have lone surrogates and NUL.
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))
st.register_type_strategy(str, st.text(st.characters(), max_size=20))

a_command = st.one_of(*map(st.from_type, (Submit, Abort, Pin, Shutdown)))
an_event = st.one_of(*map(st.from_type, (Ready, StartFailed, StepOutput, Alive)))


def bodies(frames: bytes) -> list[bytes]:
    return FrameReader().feed(frames)


def packed(value: Any) -> bytes:
    return json.dumps(value).encode()


@given(a_command)
def test_commands_round_trip(command: EngineCommand) -> None:
    (body,) = bodies(commands().encode(command))
    assert commands().decode(body) == command


@given(an_event)
def test_events_round_trip(event: EngineEvent) -> None:
    (body,) = bodies(events().encode(event))
    assert events().decode(body) == event


@given(st.from_type(Start))
def test_the_start_round_trips(start: Start) -> None:
    (body,) = bodies(Codec(Start).encode(start))
    assert Codec(Start).decode(body) == start


@given(st.lists(a_command, max_size=5), st.data())
def test_frames_survive_any_cutting(messages: list[EngineCommand], data: st.DataObject) -> None:
    stream = b"".join(map(commands().encode, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = FrameReader()
    found = [
        commands().decode(body)
        for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for body in reader.feed(stream[begin:end])
    ]
    assert found == messages


@given(st.binary(max_size=64))
def test_garbage_is_an_error(body: bytes) -> None:
    with pytest.raises(WireError):
        events().decode(body)


SUBMIT = json.loads(packed(asdict(Submit("a", "t", (), (1,), SamplingParams(1)))))
SAMPLING = SUBMIT["sampling"]


@pytest.mark.parametrize(
    "value",
    [
        ["Submit", {**SUBMIT, "extra": 1}],
        ["Submit", {key: value for key, value in SUBMIT.items() if key != "priority"}],
        ["Submit", {**SUBMIT, "id": 1}],
        ["Submit", {**SUBMIT, "priority": True}],
        ["Submit", {**SUBMIT, "priority": 1.0}],
        ["Submit", {**SUBMIT, "deadline": "1"}],
        ["Submit", {**SUBMIT, "prefixes": "ab"}],
        ["Submit", {**SUBMIT, "prefixes": [1]}],
        ["Submit", {**SUBMIT, "input_ids": [1, True]}],
        ["Submit", {**SUBMIT, "input_ids": [1, 2.0]}],
        ["Submit", {**SUBMIT, "input_ids": None}],
        ["Submit", {**SUBMIT, "sampling": None}],
        ["Submit", {**SUBMIT, "sampling": {**SAMPLING, "temperature": True}}],
        ["Submit", {**SUBMIT, "sampling": {**SAMPLING, "ignore_eos": 1}}],
        ["Submit", []],
        ["Alive", {"busy": 1.0}],
        ["Exit", {}],
        [["Shutdown"], {}],
        ["Shutdown", {}, 0],
        ["Shutdown"],
        {"Shutdown": {}},
    ],
    ids=str,
)
def test_decoding_is_strict(value: Any) -> None:
    with pytest.raises(WireError):
        commands().decode(packed(value))


def test_the_base_of_the_strict_cases_is_good() -> None:
    assert isinstance(commands().decode(packed(["Submit", SUBMIT])), Submit)


@pytest.mark.parametrize("literal", [b"NaN", b"-Infinity", b"1e999"])
def test_only_finite_numbers_are_read(literal: bytes) -> None:
    body = packed(["Submit", {**SUBMIT, "deadline": 0.5}]).replace(b"0.5", literal)
    with pytest.raises(WireError):
        commands().decode(body)


@pytest.mark.parametrize("literal", [b"NaN", b"1e999", b"1", b"true", b"null"])
def test_lists_of_numbers_hold_finite_ones(literal: bytes) -> None:
    told = {"token_id": 1, "logprob": -1.0, "top_ids": [1], "top_logprobs": [-0.5]}
    delta = {"id": "a", "token_ids": [1], "index": 0, "logprobs": [told]}
    body = packed(["StepOutput", {**vars(StepOutput(None)), "deltas": [delta]}])
    assert isinstance(events().decode(body), StepOutput)
    with pytest.raises(WireError):
        events().decode(body.replace(b"-0.5", literal))


def test_deep_nesting_is_an_error() -> None:
    with pytest.raises(WireError):
        commands().decode(b"[" * 1_000_000)


def test_an_unknown_literal_is_an_error() -> None:
    change = {"tenant": "t", "digest": "d", "state": "nowhere"}
    output = {**vars(StepOutput(None)), "residency": [change]}
    with pytest.raises(WireError):
        events().decode(packed(["StepOutput", output]))
    change["state"] = "host"
    assert isinstance(events().decode(packed(["StepOutput", output])), StepOutput)


@pytest.mark.parametrize(
    "message",
    [
        Abort(b"bytes"),  # type: ignore[arg-type]
        Submit("a", "t", (), (1,), SamplingParams(1), deadline=float("nan")),
        Submit("a", "t", (), (1,), object()),  # type: ignore[arg-type]
    ],
)
def test_what_json_cannot_hold_is_not_sent(message: EngineCommand) -> None:
    with pytest.raises(WireError):
        commands().encode(message)


def test_a_message_goes_one_way_only() -> None:
    with pytest.raises(WireError):
        commands().encode(Alive(1.0))  # type: ignore[arg-type]


def test_an_absurd_length_is_an_error() -> None:
    with pytest.raises(WireError):
        FrameReader().feed(HEADER.pack(2**32 - 1))
