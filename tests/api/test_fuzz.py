"""Random requests: every answer is a success or an error of the contract, never a failure."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from api.conftest import Api, error_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service.fakes import Script, native

from prefixmux_server.engine.messages import BeamOutput, Submit
from prefixmux_server.errors import STATUS_OF_CODE

pytestmark = pytest.mark.anyio

many = settings(
    max_examples=150,
    deadline=None,
    # Requests of one test share a server, as they do in life.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

NAMES = [
    "task_id",
    "version",
    "input",
    "decoder_input",
    "parameters",
    "stream",
    "requests",
    "compose",
    "text",
    "examples",
    "template",
    "activate",
    "description",
]
PARAMETERS = [
    "max_new_tokens",
    "min_new_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "seed",
    "stop",
    "stop_token_ids",
    "ignore_eos",
    "n",
    "logprobs",
    "num_beams",
    "num_return",
    "length_penalty",
    "early_stopping",
    "no_repeat_ngram_size",
    "beam_length_includes_prompt",
]
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(0, 64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(), max_size=8)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
parameters = st.dictionaries(st.sampled_from(PARAMETERS), values, max_size=4)
parts = st.lists(st.fixed_dictionaries({"task_id": st.just("e2e")}) | values, max_size=9)
rows = st.fixed_dictionaries(
    {"input": st.text(min_size=1, max_size=8) | values},
    optional={
        "task_id": st.sampled_from(["e2e", "none"]) | values,
        "version": st.integers(1, 3) | values,
        "compose": parts | values,
        "decoder_input": st.text(max_size=8) | values,
        "parameters": parameters | values,
    },
)
words = st.text(max_size=8) | st.sampled_from(["{input}", "{input} {output}\n"]) | values
examples = st.lists(st.fixed_dictionaries({"input": words, "output": words}) | values, max_size=3)
recipes = st.fixed_dictionaries(
    {"task_id": st.sampled_from(["e2e", "new"]) | values},
    optional={
        "text": words,
        "examples": examples | values,
        "compose": parts | values,
        "template": words,
        "parameters": parameters | values,
        "activate": st.booleans() | values,
    },
)
bodies = rows | st.dictionaries(st.sampled_from(NAMES), values, max_size=4) | values
paths = st.lists(
    st.sampled_from(["prefixes", "e2e", "versions", "1", "file", "activate", "generate", "batch"])
    | st.text(max_size=6),
    max_size=5,
).map(lambda parts: "/./" + "/".join(quote(part, safe="") for part in parts))


JSON = {"content-type": "application/json"}


def found(submit: Submit) -> Script:
    """As many sequences as were asked for."""
    beams = submit.sampling.beams
    if beams is None:
        return Script(((1,),))
    return Script((), "eos", beams=(BeamOutput((1,), -1.0, "eos"),) * beams.num_return)


async def sane(api: Api, method: str, path: str, **sent: Any) -> None:
    api.engine.reply = found
    answer = await api.client.request(method, path, **sent)
    assert answer.status_code < 500, answer.text
    if not answer.is_success:
        code = answer.json()["error"]["code"]
        error_of(answer, STATUS_OF_CODE[code], code)
    assert api.engine.open == 0


@many
@given(body=bodies)
async def test_generate(api: Api, body: Any) -> None:
    await sane(api, "POST", "/generate", content=json.dumps(body))


@many
@given(body=recipes | bodies)
async def test_recipes(api: Api, body: Any) -> None:
    await sane(api, "POST", "/prefixes", content=json.dumps(body), headers=JSON)


@many
@given(
    query=st.dictionaries(
        st.sampled_from(["template", "parameters", "activate"]),
        words.map(json.dumps) | parameters.map(json.dumps) | st.text(),
    )
)
async def test_put(api: Api, query: dict[str, str]) -> None:
    await sane(api, "PUT", "/prefixes/e2e", params=query, content=native())


@many
@given(asked=st.lists(rows | values, max_size=4))
async def test_batch(api: Api, asked: list[Any]) -> None:
    await sane(api, "POST", "/generate/batch", content=json.dumps({"requests": asked}))


@many
@given(raw=st.binary(max_size=60), path=st.sampled_from(["/generate", "/prefixes/e2e"]))
async def test_bytes(api: Api, raw: bytes, path: str) -> None:
    await sane(api, "POST" if path == "/generate" else "PUT", path, content=raw)


@many
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]),
    path=paths,
    query=st.dictionaries(st.sampled_from(["limit", "cursor", "query", "since"]), st.text()),
)
async def test_paths(api: Api, method: str, path: str, query: dict[str, str]) -> None:
    if method == "HEAD":
        assert (await api.client.head(path, params=query)).status_code < 500
        return
    await sane(api, method, path, params=query)


@many
@given(
    fields=st.dictionaries(
        st.sampled_from(
            [
                "task_id",
                "activate",
                "description",
                "sha256",
                "task_index",
                "template",
                "parameters",
            ]
        ),
        st.text(st.characters(codec="utf-8"), max_size=12),
    ),
    files=st.dictionaries(
        st.sampled_from(["file", "adapter_config", "adapter_model", "other"]),
        st.binary(max_size=40),
        min_size=1,
    ),
)
async def test_forms(api: Api, fields: dict[str, str], files: dict[str, bytes]) -> None:
    await sane(api, "POST", "/prefixes", data=fields, files=files)
    assert api.stored() == (0, 0)
