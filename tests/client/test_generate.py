"""`generate` and `generate_many`: what is sent, and how the answer reads."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from client.scripted import ScriptedServer, generation, score, sent_json

from prefixmux import (
    APIResponseError,
    GenerateRequest,
    InvalidArgumentError,
    NotFoundError,
)


def echo_batch(request: httpx2.Request) -> httpx2.Response:
    """Answers every row with its own input as the text."""
    rows = [
        {"status": 200, "response": generation(text=row["input"])}
        for row in sent_json(request)["requests"]
    ]
    return httpx2.Response(200, json={"results": rows})


def test_generate_sends_the_contract_and_reads_the_answer(scripted: type[ScriptedServer]) -> None:
    server = scripted(httpx2.Response(200, json=generation()))
    answer = server.client(api_key="k-1").generate(
        "e2e", "name : Aromi", version=3, max_new_tokens=5, stop=["."], seed=None
    )
    assert server.last.method == "POST"
    assert server.last.url == "http://server/generate"
    assert server.last.headers["authorization"] == "Bearer k-1"
    assert sent_json(server.last) == {
        "task_id": "e2e",
        "version": 3,
        "input": "name : Aromi",
        "parameters": {"max_new_tokens": 5, "stop": ["."]},
    }
    assert answer.text == "a pub"
    assert answer.outputs[0].token_ids == (5, 6, 2)
    assert answer.prefixes[0].tokens == 10
    assert answer.usage.generated_tokens == 3


def test_a_composition_and_what_a_decoder_goes_on_with(scripted: type[ScriptedServer]) -> None:
    server = scripted(httpx2.Response(200, json=generation()))
    server.client().generate(
        None, "x", decoder_input=(5, 6), compose=["a", ("b", 2), ("c", None)], num_beams=4
    )
    assert sent_json(server.last) == {
        "compose": [{"task_id": "a"}, {"task_id": "b", "version": 2}, {"task_id": "c"}],
        "input": "x",
        "decoder_input": [5, 6],
        "parameters": {"num_beams": 4},
    }


def test_beams_come_with_their_scores(scripted: type[ScriptedServer]) -> None:
    sequence: dict[str, object] = {"token_ids": [5], "finish_reason": "eos", "text": "a"}
    outputs = [{**sequence, "index": 0, "score": -0.5}, {**sequence, "index": 1, "score": -1}]
    server = scripted(httpx2.Response(200, json=generation(outputs=outputs)))
    answer = server.client().generate("e2e", "x", num_beams=2, num_return=2, early_stopping="never")
    assert [output.score for output in answer.outputs] == [-0.5, -1]
    assert sent_json(server.last)["parameters"]["early_stopping"] == "never"


def test_many_rows_may_be_compositions(scripted: type[ScriptedServer]) -> None:
    server = scripted(echo_batch)
    row = GenerateRequest(None, "x", compose=["a"], decoder_input="y")
    server.client().generate_many([row])
    body = {"compose": [{"task_id": "a"}], "input": "x", "decoder_input": "y"}
    assert sent_json(server.last) == {"requests": [body]}


def test_the_bare_model_takes_ids_and_may_answer_without_text(
    scripted: type[ScriptedServer],
) -> None:
    bare = generation(text=None, task_id=None, version=None, prefix_digest=None, prefixes=[])
    server = scripted(httpx2.Response(200, json=bare))
    answer = server.client().generate(None, (1, 2, 3))
    assert sent_json(server.last) == {"input": [1, 2, 3]}
    assert (answer.text, answer.task_id, answer.prefixes) == (None, None, ())


def test_fields_of_a_newer_server_are_kept(scripted: type[ScriptedServer]) -> None:
    server = scripted(httpx2.Response(200, json=generation(colour="blue")))
    answer = server.client().generate("e2e", "x")
    assert answer.model_extra is not None
    assert answer.model_extra["colour"] == "blue"


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"[]", b'{"id": "g"}', b""])
def test_an_answer_of_something_else_is_a_typed_error(
    scripted: type[ScriptedServer], body: bytes
) -> None:
    server = scripted(httpx2.Response(200, content=body))
    with pytest.raises(APIResponseError):
        server.client().generate("e2e", "x")


@pytest.mark.parametrize("value", [float("nan"), object(), "\ud800"])
def test_what_json_cannot_carry_is_refused_before_sending(
    scripted: type[ScriptedServer], value: Any
) -> None:
    server = scripted()
    with pytest.raises(InvalidArgumentError):
        server.client().generate("e2e", "x", temperature=value)
    assert server.requests == []


@pytest.mark.parametrize(("rows", "calls"), [(1, [1]), (256, [256]), (257, [256, 1])])
def test_generate_many_splits_and_keeps_the_order(
    scripted: type[ScriptedServer], rows: int, calls: list[int]
) -> None:
    server = scripted(*[echo_batch] * len(calls))
    requests = [GenerateRequest("e2e", str(i)) for i in range(rows)]
    answered = server.client().generate_many(requests)
    assert [row.unwrap().text for row in answered] == [str(i) for i in range(rows)]
    assert [len(sent_json(request)["requests"]) for request in server.requests] == calls


def test_generate_many_splits_long_rows_below_the_body_limit(
    scripted: type[ScriptedServer],
) -> None:
    server = scripted(*[echo_batch] * 3)
    texts = [letter * 600_000 for letter in "abc"]
    answered = server.client().generate_many([{"input": text} for text in texts])
    assert [row.unwrap().text for row in answered] == texts
    assert all(len(request.content) < 2**20 for request in server.requests)


def test_generate_many_of_nothing_sends_nothing(scripted: type[ScriptedServer]) -> None:
    server = scripted()
    assert server.client().generate_many([]) == []
    assert server.requests == []


def test_a_dict_is_sent_as_it_is(scripted: type[ScriptedServer]) -> None:
    server = scripted(echo_batch)
    row = {"task_id": None, "input": "x", "parameters": {"seed": None}, "unknown": 1}
    server.client().generate_many([row])
    assert sent_json(server.last) == {"requests": [row]}


def test_a_refused_row_is_its_own(scripted: type[ScriptedServer]) -> None:
    error = {"code": "task_not_found", "message": "No such task.", "param": "task_id"}
    rows = [{"status": 200, "response": generation()}, {"status": 404, "error": error}]
    server = scripted(httpx2.Response(200, json={"results": rows}))
    good, bad = server.client().generate_many([{"input": "x"}, {"input": "y"}])
    assert good.ok
    assert not bad.ok
    with pytest.raises(NotFoundError) as caught:
        bad.unwrap()
    assert (caught.value.code, caught.value.param) == ("task_not_found", "task_id")


def test_a_batch_answer_of_the_wrong_length_is_refused(scripted: type[ScriptedServer]) -> None:
    server = scripted(httpx2.Response(200, content=json.dumps({"results": []})))
    with pytest.raises(APIResponseError):
        server.client().generate_many([{"input": "x"}])


def test_several_outputs_come_with_log_probabilities(scripted: type[ScriptedServer]) -> None:
    top = [{"token_id": 5, "token": "a", "logprob": -0.5}]
    said = {"token_id": 7, "token": "b", "logprob": -1.5, "top": top}
    output: dict[str, object] = {"text": "b", "token_ids": [7], "finish_reason": "length"}
    outputs = [{**output, "index": index, "logprobs": [said]} for index in range(2)]
    body = generation(outputs=outputs, prompt_logprobs=[None, said])
    server = scripted(httpx2.Response(200, json=body))
    answer = server.client().generate("e2e", "x", n=2, logprobs=1, prompt_logprobs=1)
    assert sent_json(server.last)["parameters"] == {"n": 2, "logprobs": 1, "prompt_logprobs": 1}
    (token,) = answer.outputs[1].logprobs or ()
    assert (token.token_id, token.token, token.logprob) == (7, "b", -1.5)
    assert [(each.token, each.logprob) for each in token.top] == [("a", -0.5)]
    assert answer.prompt_logprobs == (None, token)


def test_an_answer_knows_its_request_id_which_makes_it_no_other(
    scripted: type[ScriptedServer],
) -> None:
    answers = [
        httpx2.Response(200, json=generation(), headers={"x-request-id": name})
        for name in ("r-1", "r-2")
    ]
    client = scripted(*answers).client()
    one, other = client.generate("e2e", "x"), client.generate("e2e", "x")
    assert (one.request_id, other.request_id) == ("r-1", "r-2")
    assert one == other
    assert "request_id" not in one.model_dump()


def test_targets_are_scored(scripted: type[ScriptedServer]) -> None:
    server = scripted(httpx2.Response(200, json=score(), headers={"x-request-id": "r-1"}))
    answer = server.client().score(
        "e2e", "good?", [" no", (5, 6)], version=2, decoder_input="y", timeout_s=3
    )
    assert (server.last.method, server.last.url.path) == ("POST", "/score")
    assert sent_json(server.last) == {
        "task_id": "e2e",
        "version": 2,
        "input": "good?",
        "decoder_input": "y",
        "targets": [" no", [5, 6]],
        "timeout_s": 3,
    }
    assert (answer.best.text, answer.best.is_greedy, answer.request_id) == (" yes", True, "r-1")
    assert answer.scores[0].logprobs[0].token == " no"


def test_a_score_may_be_of_a_composition(scripted: type[ScriptedServer]) -> None:
    server = scripted(httpx2.Response(200, json=score()))
    server.client().score(None, [1], ["a"], compose=["b", ("c", 2)])
    assert sent_json(server.last) == {
        "compose": [{"task_id": "b"}, {"task_id": "c", "version": 2}],
        "input": [1],
        "targets": ["a"],
    }


def test_a_row_that_json_cannot_carry_is_refused_before_sending(
    scripted: type[ScriptedServer],
) -> None:
    server = scripted()
    with pytest.raises(InvalidArgumentError):
        server.client().generate_many([{"input": object()}])
    assert server.requests == []
