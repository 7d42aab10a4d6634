"""What a version stores for requests that say nothing: its template and its parameters."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest
from api.conftest import Api, error_of
from service.fakes import CONTEXT, VOCABULARY, ids, native, reply_with

pytestmark = pytest.mark.anyio


async def push(api: Api, template: str | None = None, **parameters: Any) -> dict[str, Any]:
    fields = {"task_id": "e2e", "parameters": json.dumps(parameters)}
    if template is not None:
        fields["template"] = template
    answer = await api.client.post("/prefixes", data=fields, files={"file": native()})
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_template_stands_around_text_and_not_around_ids(api: Api) -> None:
    assert (await push(api, "Q: {input}\nA:"))["template"] == "Q: {input}\nA:"
    await api.generate(task_id="e2e", input="who?")
    await api.generate(task_id="e2e", input=[1, 2])
    await api.generate(input="who?")
    prompts = [submit.input_ids for submit in api.engine.submitted]
    assert prompts == [tuple(ids("Q: who?\nA:")), (1, 2), tuple(ids("who?"))]


async def test_the_template_counts_as_the_prompt(api: Api) -> None:
    await push(api, "Q: {input}\nA:")
    answer = (await api.generate(task_id="e2e", input="who?")).json()
    assert answer["usage"]["prompt_tokens"] == len("Q: who?\nA:")
    error_of(await api.generate(task_id="e2e", input="x" * CONTEXT), 422, "prompt_too_long")


async def test_stored_parameters_hold_unless_a_request_says_otherwise(api: Api) -> None:
    stored: dict[str, Any] = {
        "max_new_tokens": 4,
        "top_k": 3,
        "temperature": 0.5,
        "stop": ["l"],
        "seed": 9,
    }
    assert (await push(api, **stored))["parameters"] == stored
    answer = (await api.generate(task_id="e2e", input="a")).json()
    asked = {"top_k": 2, "stop": [], "max_new_tokens": None}
    await api.generate(task_id="e2e", input="a", parameters=asked)
    first, second = (submit.sampling for submit in api.engine.submitted)
    assert (first.max_new_tokens, first.top_k, first.temperature, first.seed) == (4, 3, 0.5, 9)
    assert (second.max_new_tokens, second.top_k, second.temperature) == (4, 2, 0.5)
    assert (answer["outputs"][0]["text"], answer["seed"]) == ("he", 9)
    assert len(api.engine.aborted) == 1


async def test_a_stored_time_limit_is_one(api: Api) -> None:
    await push(api, timeout_s=0.01)
    api.engine.gate.clear()
    error_of(await api.generate(task_id="e2e", input="a"), 504, "deadline_exceeded")
    assert api.engine.open == 0
    api.engine.gate.set()
    parameters = {"timeout_s": 60}
    assert (await api.generate(task_id="e2e", input="a", parameters=parameters)).status_code == 200


async def test_a_stored_max_new_tokens_gives_way_to_a_long_prompt(api: Api) -> None:
    await push(api, max_new_tokens=40)
    await api.generate(task_id="e2e", input=[1] * (CONTEXT - 10))
    assert api.engine.submitted[0].sampling.max_new_tokens == 8
    parameters = {"max_new_tokens": 9}
    refused = await api.generate(task_id="e2e", input=[1] * (CONTEXT - 10), parameters=parameters)
    assert error_of(refused, 422, "invalid_parameter")["param"] == "parameters.max_new_tokens"


async def test_what_is_asked_and_what_is_stored_have_to_go_together(api: Api) -> None:
    await push(api, stop=["."])
    answer = await api.generate(task_id="e2e", input="a", parameters={"num_beams": 2})
    assert error_of(answer, 422, "invalid_parameter")["param"] == "parameters.stop"
    assert "[]" in answer.json()["error"]["message"]
    assert api.engine.submitted == []


async def test_other_defaults_are_another_version(api: Api) -> None:
    first = await push(api, top_k=1)
    second = await push(api, top_k=2)
    again = await push(api, top_k=1)
    assert (first["version"], second["version"], again["version"]) == (1, 2, 1)
    assert first["prefix_digest"] == second["prefix_digest"]
    assert api.stored() == (1, 1)


async def test_a_version_asked_for_by_number_has_its_own_defaults(api: Api) -> None:
    await push(api, top_k=1)
    await push(api, top_k=2)
    await api.generate(task_id="e2e", version=1, input="a")
    assert api.engine.submitted[0].sampling.top_k == 1


async def test_put_takes_them_as_a_query(api: Api) -> None:
    query = urlencode({"template": "{input}?", "parameters": '{"top_k": 1}'})
    answer = await api.client.put(f"/prefixes/e2e?{query}", content=native())
    assert answer.status_code == 201, answer.text
    assert (answer.json()["template"], answer.json()["parameters"]) == ("{input}?", {"top_k": 1})


async def test_a_task_without_defaults_is_as_ever(api: Api) -> None:
    await push(api)
    api.engine.reply = reply_with(ids("hello"))
    answer = (await api.generate(task_id="e2e", input="a")).json()
    assert answer["outputs"][0]["text"] == "hello"


# (template, parameters as sent, code, param)
BAD: list[tuple[str | None, str | None, str, str]] = [
    ("", None, "invalid_request", "template"),
    ("no place", None, "invalid_request", "template"),
    ("{Input}", None, "invalid_request", "template"),
    ("{ input }", None, "invalid_request", "template"),
    (None, "", "invalid_request", "parameters"),
    (None, "x", "invalid_request", "parameters"),
    (None, '{"top_k": 1', "invalid_request", "parameters"),
    (None, '{"top_k": 1, "top_k": 2}', "invalid_request", "parameters"),
    (None, '{"temperature": NaN}', "invalid_request", "parameters"),
    (None, "[" * 40, "invalid_request", "parameters"),
    (None, "[]", "invalid_parameter", "parameters"),
    (None, "5", "invalid_parameter", "parameters"),
    (None, '{"top_k": "1"}', "invalid_parameter", "parameters.top_k"),
    (None, '{"top_p": 0}', "invalid_parameter", "parameters.top_p"),
    (None, '{"n": 2}', "invalid_parameter", "parameters.n"),
    (None, '{"best_of": 2}', "invalid_parameter", "parameters.best_of"),
    (None, f'{{"top_k": {VOCABULARY + 1}}}', "invalid_parameter", "parameters.top_k"),
    (
        None,
        f'{{"stop_token_ids": [{VOCABULARY}]}}',
        "invalid_parameter",
        "parameters.stop_token_ids",
    ),
    (
        None,
        '{"num_beams": 2, "temperature": 1}',
        "invalid_parameter",
        "parameters.temperature",
    ),
    (None, '{"num_beams": 2, "stop": ["a"]}', "invalid_parameter", "parameters.stop"),
    (
        None,
        '{"max_new_tokens": 2, "min_new_tokens": 3}',
        "invalid_parameter",
        "parameters.min_new_tokens",
    ),
]


async def test_bad_defaults_are_refused_in_every_form(api: Api, subtests: pytest.Subtests) -> None:
    await api.put("e2e")
    api.engine.probed.clear()
    for template, parameters, code, param in BAD:
        said = {"template": template, "parameters": parameters}
        fields = {name: text for name, text in said.items() if text is not None}
        with subtests.test(template=template and template[:20], parameters=parameters):
            form = {"task_id": "e2e", **fields}
            answer = await api.client.post("/prefixes", data=form, files={"file": native(4)})
            assert error_of(answer, 422, code)["param"] == param
            put = f"/prefixes/e2e?{urlencode(fields)}"
            answer = await api.client.put(put, content=native(4))
            assert error_of(answer, 422, code)["param"] == param
    assert api.stored() == (1, 1)
    assert api.engine.probed == []


async def test_a_template_that_is_too_long(api: Api) -> None:
    long = "{input}" + "x" * 65_536
    answer = await api.client.post(
        "/prefixes", data={"task_id": "e2e", "template": long}, files={"file": native()}
    )
    of_form = error_of(answer, 422, "invalid_request")
    api.app.state.services = replace(api.app.state.services, max_body_bytes=100_000)
    answer = await api.client.post(
        "/prefixes", json={"task_id": "e2e", "text": "a", "template": long}
    )
    of_json = error_of(answer, 422, "invalid_request")
    assert of_form["param"] == of_json["param"] == "template"
    assert of_form["message"] == of_json["message"]
    assert api.stored() == (0, 0)


async def test_stop_strings_to_be_stored_need_a_tokenizer(api: Api) -> None:
    api.engine.without_tokenizer()
    form = {"task_id": "e2e", "parameters": '{"stop": ["."]}'}
    answer = await api.client.post("/prefixes", data=form, files={"file": native()})
    assert error_of(answer, 422, "tokenizer_unavailable")["param"] == "parameters.stop"
    assert api.stored() == (0, 0)
