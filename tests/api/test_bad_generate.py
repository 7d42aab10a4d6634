"""Everything that can be wrong with a body of `/generate`: its code, its place, and no trace."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from api.conftest import MAX_BODY, MAX_ROWS, Api, error_of
from service.fakes import CONTEXT, VOCABULARY

pytestmark = pytest.mark.anyio

# (parameter, values that it never takes)
BAD_PARAMETERS: list[tuple[str, list[Any]]] = [
    ("max_new_tokens", [0, -1, 1.5, 1.0, "5", True, [], {}, 2**31, 2**63, 2**200, CONTEXT + 1]),
    ("min_new_tokens", [-1, 1.0, "0", False, CONTEXT + 1, 2**70]),
    ("temperature", [-0.1, 10.1, "1", True, [1], 10**400]),
    ("top_k", [-1, 1.0, "1", True, VOCABULARY + 1, 2**64]),
    ("top_p", [0, -0.1, 1.1, "1", True]),
    ("min_p", [-0.1, 1.1, "0", False]),
    ("repetition_penalty", [0, -1, 10.1, "1", True]),
    ("frequency_penalty", [-2.1, 2.1, "0", True]),
    ("presence_penalty", [-2.1, 2.1, "0", True]),
    ("seed", [-1, 2**63, 2**64, 1.0, "1", True]),
    ("stop", ["x", [""], ["a"] * 17, ["x" * 257], ["é" * 129], [1], [None], {}, ["a", 5], True]),
    ("stop_token_ids", [1, ["1"], [-1], [VOCABULARY], [1.0], [True], [0] * 65, "1", [2**70]]),
    ("ignore_eos", [0, 1, "true", []]),
    ("n", [0, 2, 17, 1.0, "1", True]),
    ("logprobs", [21, -1, 1.0, True, "1"]),
    ("prompt_logprobs", [21, -1, 1.0, True, "1"]),
    ("timeout_s", [0, -1, 3600.1, "1", True]),
    ("num_beams", [0, 17, 2.0, "2", True, []]),
    ("num_return", [0, 2, 17, 1.0, True]),
    ("length_penalty", [10.1, -10.1, "1", True, 10**400]),
    ("early_stopping", [1, 0, "yes", "", [], {}, 1.5]),
    ("no_repeat_ngram_size", [-1, 1.0, False, 2**31]),
    ("beam_length_includes_prompt", [0, "true", []]),
    ("best_of", [1]),
    ("__proto__", [{}]),
    ("max_tokens", [5]),
]

# (body, param)
BAD_BODIES: list[tuple[Any, str | None]] = [
    ([], None),
    ("text", None),
    (5, None),
    (None, None),
    (True, None),
    ({}, "input"),
    ({"input": None}, "input"),
    ({"input": ""}, "input"),
    ({"input": []}, "input"),
    ({"input": 5}, "input"),
    ({"input": True}, "input"),
    ({"input": {"text": "a"}}, "input"),
    ({"input": ["a"]}, "input"),
    ({"input": [1.0]}, "input"),
    ({"input": [True]}, "input"),
    ({"input": [None]}, "input"),
    ({"input": [[1]]}, "input"),
    ({"input": [-1]}, "input"),
    ({"input": [VOCABULARY]}, "input"),
    ({"input": [2**63]}, "input"),
    ({"input": [2**200]}, "input"),
    ({"input": "a", "version": 1}, "version"),
    ({"input": "a", "task_id": "e2e", "version": 0}, "version"),
    ({"input": "a", "task_id": "e2e", "version": -1}, "version"),
    ({"input": "a", "task_id": "e2e", "version": "1"}, "version"),
    ({"input": "a", "task_id": "e2e", "version": 1.0}, "version"),
    ({"input": "a", "task_id": "e2e", "version": True}, "version"),
    ({"input": "a", "task_id": "e2e", "version": 2**63}, "version"),
    ({"input": "a", "stream": "false"}, "stream"),
    ({"input": "a", "stream": 0}, "stream"),
    ({"input": "a", "compose": []}, "compose"),
    ({"input": "a", "compose": {}}, "compose"),
    ({"input": "a", "compose": "e2e"}, "compose"),
    ({"input": "a", "compose": [{"task_id": "e2e"}] * 9}, "compose"),
    ({"input": "a", "compose": ["e2e"]}, "compose.0"),
    ({"input": "a", "compose": [{}]}, "compose.0.task_id"),
    ({"input": "a", "compose": [{"task_id": "e2e"}, {"task_id": "E2E"}]}, "compose.1.task_id"),
    ({"input": "a", "compose": [{"task_id": "e2e", "version": 0}]}, "compose.0.version"),
    ({"input": "a", "compose": [{"task_id": "e2e", "digest": "x"}]}, "compose.0.digest"),
    ({"input": "a", "compose": [{"task_id": "e2e"}], "task_id": "e2e"}, "task_id"),
    ({"input": "a", "compose": [{"task_id": "e2e"}], "version": 1}, "version"),
    ({"input": "a", "decoder_input": "a"}, "decoder_input"),
    ({"input": "a", "decoder_input": [1]}, "decoder_input"),
    ({"input": "a", "decoder_input": ""}, "decoder_input"),
    ({"input": "a", "decoder_input": []}, "decoder_input"),
    ({"input": "a", "decoder_input": [1.0]}, "decoder_input"),
    ({"input": "a", "decoder_input": 5}, "decoder_input"),
    ({"input": "a", "decoder_input": [VOCABULARY]}, "decoder_input"),
    ({"input": "a", "prompt": "a"}, "prompt"),
    ({"input": "a", "tenant": "other"}, "tenant"),
    ({"input": "a", "": 1}, None),
    ({"input": "a", **{f"x{number}": 1 for number in range(200)}}, None),
    ({"input": "]" * 99, "version": "[" * 99}, "version"),
    ({"input": [""] * 3000}, "input"),
    ({"input": "a", "x" * 500: 1}, "x" * 128),
    ({"input": "a", "ключ\n": 1}, "\\u043a\\u043b\\u044e\\u0447\n"),
]

BAD_TASK_IDS = [
    "",
    ".",
    "..",
    "a/../b",
    "../../etc/passwd",
    "%2e%2e%2f",
    "..%5c",
    "a\u0000",
    "a" * 65,
    "a" * 255,
    "a" * 10_000,
    "CON",
    "~",
    "-rf",
    ".hidden",
    "_a",
    "é",
    "e\u0301",
    "\uff41",
    "\u0430",
    "a ",
    " a",
    "a\n",
    "a.\u200b",
    "\U0001f600",
    "a:b",
    "a@1",
    "__proto__",
    "a';--",
    "%s%n",
    "A",
]

BAD_JSON: list[bytes] = [
    b"",
    b" ",
    b"{",
    b'{"input": "a"',
    b'{"input": "a"}}',
    b'{"input": "a",}',
    b"{'input': 'a'}",
    b'{"input": "a"} extra',
    b'{"input": "a", "parameters": {"temperature": NaN}}',
    b'{"input": "a", "parameters": {"temperature": Infinity}}',
    b'{"input": "a", "parameters": {"temperature": -Infinity}}',
    b'{"input": "a", "input": "b"}',
    b'{"input": "\xff"}',
    b'{"input": "\xed\xa0\x80"}',
    b'\xef\xbb\xbf{"input": "a"}',
    '{"input": "a"}'.encode("utf-16"),
    b'{"input": "\x01"}',
    b'{"input": 1' + b"0" * 5000 + b"}",
    b"[" * 33 + b"]" * 33,
    b"[" * 9000 + b"]" * 9000,
    b'{"input":' + b"[" * 5000,
    b'{"a":' * 40 + b"1" + b"}" * 40,
    rb'{"\"": ' + b"[" * 32 + b"]" * 32 + b"}",
]


async def untouched(api: Api) -> None:
    """Nothing reached the engine, and a good request still does."""
    assert api.engine.submitted == []
    assert (await api.generate(input="a")).status_code == 200


async def test_a_bad_parameter_is_named(api: Api, subtests: pytest.Subtests) -> None:
    for name, value in ((name, value) for name, values in BAD_PARAMETERS for value in values):
        with subtests.test(parameter=name, value=repr(value)[:40]):
            answer = await api.generate(input="a", parameters={name: value})
            param: str = error_of(answer, 422, "invalid_parameter")["param"]
            assert param == f"parameters.{name}" or param.startswith(f"parameters.{name}.")
    await untouched(api)


@pytest.mark.parametrize("value", [[], "a", 5, True])
async def test_parameters_are_an_object(api: Api, value: Any) -> None:
    answer = await api.generate(input="a", parameters=value)
    assert error_of(answer, 422, "invalid_parameter")["param"] == "parameters"


async def test_a_number_that_only_overflows_to_infinity_is_a_bad_parameter(api: Api) -> None:
    content = b'{"input": "a", "parameters": {"temperature": 1e309}}'
    answer = await api.client.post("/generate", content=content)
    assert error_of(answer, 422, "invalid_parameter")["param"] == "parameters.temperature"
    assert math.isinf(json.loads(content)["parameters"]["temperature"])


async def test_a_bad_body_is_named(api: Api, subtests: pytest.Subtests) -> None:
    for body, param in BAD_BODIES:
        with subtests.test(body=repr(body)[:60]):
            answer = await api.client.post("/generate", content=json.dumps(body))
            assert error_of(answer, 422, "invalid_request")["param"] == param
    await untouched(api)


async def test_a_bad_task_id_in_a_body(api: Api, subtests: pytest.Subtests) -> None:
    for task_id in [*BAD_TASK_IDS, 5, True, [], {"a": 1}]:
        with subtests.test(task_id=ascii(task_id)[:40]):
            answer = await api.generate(input="a", task_id=task_id)
            assert error_of(answer, 422, "invalid_request")["param"] == "task_id"
    await untouched(api)


# (parameters, param): each is good alone.
BAD_TOGETHER: list[tuple[dict[str, Any], str]] = [
    ({"num_beams": 2, "temperature": 0.5}, "parameters.temperature"),
    ({"num_beams": 2, "stop": ["a"]}, "parameters.stop"),
    ({"num_beams": 2, "num_return": 3}, "parameters.num_return"),
    ({"num_beams": 4, "n": 2, "num_return": 3}, "parameters.n"),
    ({"num_beams": 2, "n": 3}, "parameters.n"),
    ({"num_beams": 2, "logprobs": 0}, "parameters.logprobs"),
    ({"n": 2}, "parameters.n"),
    ({"n": MAX_ROWS + 1, "temperature": 1}, "parameters.n"),
    ({"max_new_tokens": 2, "min_new_tokens": 3}, "parameters.min_new_tokens"),
]


async def test_parameters_that_do_not_go_together(api: Api, subtests: pytest.Subtests) -> None:
    for parameters, param in BAD_TOGETHER:
        with subtests.test(parameters=parameters):
            answer = await api.generate(input="a", parameters=parameters)
            assert error_of(answer, 422, "invalid_parameter")["param"] == param
    await untouched(api)


async def test_a_search_is_not_streamed(api: Api) -> None:
    answer = await api.generate(input="a", stream=True, parameters={"num_beams": 2})
    assert error_of(answer, 422, "invalid_request")["param"] == "stream"


async def test_bytes_that_are_no_strict_json(api: Api, subtests: pytest.Subtests) -> None:
    for raw in BAD_JSON:
        for headers in ({}, {"content-type": "application/json; charset=utf-8"}):
            with subtests.test(raw=raw[:60], headers=headers):
                answer = await api.client.post("/generate", content=raw, headers=headers)
                assert error_of(answer, 400, "invalid_json")["param"] is None
    await untouched(api)


SURROGATES: list[tuple[str, str, str | None]] = [
    (r'{"input": "\ud800"}', "invalid_request", "input"),
    (r'{"input": "a\udfffb"}', "invalid_request", "input"),
    (r'{"input": "a", "task_id": "\ud800"}', "invalid_request", "task_id"),
    (r'{"input": "a", "decoder_input": "\ud800"}', "invalid_request", "decoder_input"),
    (r'{"input": "a", "\ud800": 1}', "invalid_request", None),
    (
        r'{"input": "a", "parameters": {"stop": ["\udc00"]}}',
        "invalid_parameter",
        "parameters.stop.0",
    ),
    (r'{"input": "a", "parameters": {"\udc00": 1}}', "invalid_parameter", "parameters"),
]


async def test_lone_surrogates(api: Api, subtests: pytest.Subtests) -> None:
    for raw, code, param in SURROGATES:
        with subtests.test(raw=raw):
            answer = await api.client.post("/generate", content=raw.encode())
            assert error_of(answer, 422, code)["param"] == param
    await untouched(api)


async def test_a_surrogate_pair_is_a_character(api: Api) -> None:
    answer = await api.client.post("/generate", content=rb'{"input": "\ud83d\ude00"}')
    assert answer.json()["usage"]["prompt_tokens"] == 4


async def test_brackets_in_strings_are_not_depth(api: Api) -> None:
    for text in ("[" * 99, '\\"[[' * 40, "{" * 50 + '"' + "}" * 50, "\\" * 7 + "[" * 60):
        answer = await api.generate(input=[1] * 3, parameters={"stop": [text[:200]] * 2})
        assert answer.status_code == 200, answer.text


async def test_odd_text_is_text(api: Api) -> None:
    for text in ["\x00", " ", "\n\t", "\u200b\u202e", "<|endoftext|>", "</s>"]:
        assert (await api.generate(input=text)).status_code == 200


async def test_bodies_are_plain_json(api: Api) -> None:
    for name, value in [
        ("content-type", "text/plain"),
        ("content-type", "application/xml"),
        ("content-type", "multipart/form-data"),
        ("content-encoding", "gzip"),
        ("content-encoding", "identity, br"),
    ]:
        headers = {name: value}
        answer = await api.client.post("/generate", content=b'{"input": "a"}', headers=headers)
        error_of(answer, 415, "unsupported_media_type")


async def test_a_body_of_the_largest_size_is_read_and_one_byte_more_is_not(api: Api) -> None:
    body = b'{"input": "a"}'
    full = body + b" " * (MAX_BODY - len(body))
    assert (await api.client.post("/generate", content=full)).status_code == 200
    error_of(await api.client.post("/generate", content=full + b" "), 413, "body_too_large")


async def test_a_body_without_length_is_counted_as_it_comes(api: Api) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while sent < 100 * MAX_BODY:
            sent += 1000
            yield b" " * 1000

    answer = await api.client.post("/generate", content=endless())
    error_of(answer, 413, "body_too_large")


async def test_a_prompt_that_leaves_no_room(api: Api) -> None:
    assert (await api.generate(input=[1] * CONTEXT)).status_code == 200
    answer = await api.generate(input=[1] * (CONTEXT + 1))
    assert error_of(answer, 422, "prompt_too_long")["param"] == "input"
    assert error_of(await api.generate(input="x" * 5000), 422, "prompt_too_long")


async def test_unknown_tasks_and_versions(api: Api) -> None:
    error_of(await api.generate(task_id="none", input="a"), 404, "task_not_found")
    await api.put("e2e")
    parts = [{"task_id": "e2e"}, {"task_id": "none"}]
    answer = await api.generate(compose=parts, input="a")
    assert error_of(answer, 404, "task_not_found")["param"] == "compose.1.task_id"
    answer = await api.generate(compose=[{"task_id": "e2e", "version": 2}], input="a")
    assert error_of(answer, 404, "version_not_found")["param"] == "compose.0.version"
    answer = await api.generate(task_id="e2e", version=2, input="a")
    assert error_of(answer, 404, "version_not_found")["param"] == "version"
