"""JSON in pieces: the same as in one dump, and never long at a time."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from api.conftest import Api
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from service.fakes import INFO, Script, ids, likely

from prefixmux_server.api.http.written import ASCII, PIECE, UTF8, Encode, paced, written
from prefixmux_server.service.generation import score
from prefixmux_server.service.generation.answer import (
    Answer,
    AnswerTiming,
    Output,
    Usage,
    UsedPrefix,
)
from prefixmux_server.service.generation.likely import Logprobs, PromptLogprobs
from prefixmux_server.service.text.text import TextCodec

pytestmark = pytest.mark.anyio
CODEC = TextCodec(INFO)
# The context of the fake model is small; outputs are as many and as wide as they may be.
WIDE = {"n": 4, "temperature": 1.0, "logprobs": 20, "prompt_logprobs": 20}

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.dictionaries(st.text(), inner)
        | st.lists(st.integers(), max_size=5000)
        | st.lists(st.dictionaries(st.text(), inner))
    ),
    max_leaves=10,
)


def logprobs(kind: type[Logprobs], tokens: int, top: int = 20) -> Any:
    made = kind(CODEC)
    made.take(likely(place % 100, top) for place in range(tokens))
    return made


def answer(tokens: int, outputs: int = 1, top: int = 20) -> Answer:
    return Answer(
        id="id",
        tenant="acme",
        task_id="e2e",
        version=2,
        prefix_digest="sha256:0",
        prefixes=[UsedPrefix("e2e", 2, "sha256:0", 3)],
        model="tiny\u2028",
        outputs=[
            Output(
                0, 'é"\n\u2028😀', [1] * tokens, "stop", "é", None, logprobs(Logprobs, tokens, top)
            )
            for _ in range(outputs)
        ],
        prompt_logprobs=logprobs(PromptLogprobs, tokens, top),
        seed=2**63 - 1,
        usage=Usage(1, 2, 3),
        timing=AnswerTiming(0.1, 1e-7, 1e22, 3),
    )


@given(value=VALUES, encode=st.sampled_from([UTF8, ASCII]))
def test_it_says_what_a_dump_says(value: object, encode: Encode) -> None:
    assert "".join(written(value, encode)) == encode(value)


@pytest.mark.parametrize("encode", [UTF8, ASCII])
@pytest.mark.parametrize("tokens", [0, 1, 3])
@pytest.mark.parametrize("top", [0, 2])
def test_an_answer_is_that_of_its_schema(encode: Encode, tokens: int, top: int) -> None:
    made = answer(tokens, 2, top)
    told = "".join(written(made, encode))
    assert json.loads(told) == json.loads(TypeAdapter(Answer).dump_json(made))
    assert told.isascii() or encode is UTF8


async def test_pieces_are_small_and_others_have_their_turn() -> None:
    turns = pieces = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    async for piece in paced(written(answer(500, 16))):
        assert len(piece) < 2 * PIECE
        pieces += 1
    beside.cancel()
    assert pieces > 100
    assert turns >= pieces - 1


def speaks(text: str) -> Script:
    return Script(tuple((id,) for id in ids(text)), others=(tuple((id,) for id in ids(text)),) * 3)


async def test_a_large_answer_is_the_small_ones_kind(api: Api) -> None:
    api.engine.reply = lambda _: speaks("hello" * 10)
    small = await api.generate(input="abc", parameters={**WIDE, "logprobs": 0, "seed": 5})
    large = await api.generate(input="abc", parameters={**WIDE, "seed": 5})
    assert "content-length" in small.headers
    assert "content-length" not in large.headers
    assert small.headers["content-type"] == large.headers["content-type"] == "application/json"
    first, second = small.json(), large.json()
    for output in first["outputs"] + second["outputs"]:
        assert [entry["token_id"] for entry in output.pop("logprobs")] == output["token_ids"]
    for one in (first, second):
        del one["id"], one["timing"]
    assert first == second


async def test_rows_of_a_batch_are_answered_as_alone(api: Api) -> None:
    api.engine.reply = lambda _: speaks("hello" * 10)
    row = {"input": "abc", "parameters": {**WIDE, "seed": 5}}
    answered = await api.client.post("/generate/batch", json={"requests": [row, {}, row]})
    alone = (await api.generate(**row)).json()
    first, refused, last = answered.json()["results"]
    assert (first["status"], refused["status"], last["status"]) == (200, 422, 200)
    assert refused["error"]["code"] == "invalid_request"
    for one in (alone, first["response"], last["response"]):
        del one["id"], one["timing"]
    assert first["response"] == last["response"] == alone


async def test_a_large_score_is_the_small_ones_kind(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"input": "ab", "targets": ["cd", [3]]}
    whole = (await api.client.post("/score", json=asked)).json()
    monkeypatch.setattr(score, "LARGE", 2)
    assert (await api.client.post("/score", json=asked)).json()["scores"] == whole["scores"]
