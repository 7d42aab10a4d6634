"""`generate` as it is made, several outputs and log-probabilities; `score`."""

from __future__ import annotations

import json

import httpx2
import pytest
from client.events import Streaming, done, error, token
from client.scripted import generation, refusal, score, sent_json
from client.terminal import Terminal

LINE = ("generate", "e2e", "x")


def test_a_stream_is_printed_as_it_comes(terminal: Terminal) -> None:
    answer = Streaming(token("a "), token(""), token("p\u00fcb"), done())
    result = terminal.run(*LINE, "--stream", "--max-new-tokens", "4", steps=(answer,))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "a p\u00fcb\n", "")
    assert sent_json(terminal.server.last)["stream"] is True
    assert sent_json(terminal.server.last)["parameters"] == {"max_new_tokens": 4}
    assert answer.body.closed


def test_a_stream_without_text_is_printed_as_ids(terminal: Terminal) -> None:
    answer = Streaming(token(None, ids=[5, 6]), token(None, ids=[2]), done(text=None))
    result = terminal.run(*LINE, "--stream", steps=(answer,))
    assert result.stdout.split() == ["5", "6", "2"]


def test_a_stream_in_json_is_an_object_a_line(terminal: Terminal) -> None:
    answer = Streaming(token("a ", index=1), done())
    result = terminal.run(*LINE, "--stream", "--json", "--n", "2", steps=(answer,))
    first, last = map(json.loads, result.stdout.splitlines())
    assert first == {
        "event": "token",
        "index": 1,
        "text": "a ",
        "token_ids": [5],
        "logprobs": None,
    }
    assert last == {"event": "done", **generation()}


def test_where_nobody_looks_the_answer_is_asked_for_whole(terminal: Terminal) -> None:
    terminal.run(*LINE, steps=(httpx2.Response(200, json=generation()),))
    assert "stream" not in sent_json(terminal.server.last)


def test_a_stream_that_ends_in_an_error_exits_1_after_what_came(terminal: Terminal) -> None:
    answer = Streaming(token("a "), error("deadline_exceeded"))
    result = terminal.run(*LINE, "--stream", steps=(answer,))
    assert (result.exit_code, result.stdout) == (1, "a ")
    assert "504 deadline_exceeded" in result.stderr


def test_a_stream_that_is_cut_exits_3_after_what_came(terminal: Terminal) -> None:
    answer = Streaming(token("a "))
    result = terminal.run(*LINE, "--stream", steps=(answer,))
    assert (result.exit_code, result.stdout) == (3, "a ")
    assert "cut before its last event" in result.stderr


@pytest.mark.parametrize("flags", [("--n", "2"), ("--num-beams", "2")])
def test_several_outputs_are_no_stream_for_people(
    terminal: Terminal, flags: tuple[str, ...]
) -> None:
    result = terminal.run(*LINE, "--stream", *flags)
    assert result.exit_code == 2
    assert terminal.server.requests == []


def test_samples_and_their_log_probabilities(terminal: Terminal) -> None:
    top = [{"token_id": 5, "token": " a", "logprob": -0.5}]
    said = {"token_id": 7, "token": "b\n", "logprob": -1.5, "top": top}
    output: dict[str, object] = {"text": "b", "token_ids": [7], "finish_reason": "length"}
    outputs = [{**output, "index": 0, "logprobs": [said]}, {**output, "index": 1}]
    answer = httpx2.Response(200, json=generation(outputs=outputs))
    line = (*LINE, "--n", "2", "--logprobs", "1", "--temperature", "1", "--min-p", "0.1")
    result = terminal.run(*line, "--timeout-s", "3", steps=(answer,))
    assert result.stdout == "b\n  'b\\n' -1.5000  |  ' a' -0.5000\nb\n"
    assert sent_json(terminal.server.last)["parameters"] == {
        "n": 2,
        "logprobs": 1,
        "temperature": 1,
        "min_p": 0.1,
        "timeout_s": 3,
    }


def test_score_prints_the_likeliest_first(terminal: Terminal) -> None:
    line = ("score", "e2e", "good?", "-t", " no", "-t", " yes", "--version", "2")
    result = terminal.run(*line, steps=(httpx2.Response(200, json=score()),))
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows == [
        ["LOGPROB", "PER", "TOKEN", "GREEDY", "TARGET"],
        ["-0.5000", "-0.5000", "yes", "'", "yes'"],
        ["-2.5000", "-2.5000", "no", "'", "no'"],
    ]
    assert sent_json(terminal.server.last) == {
        "task_id": "e2e",
        "input": "good?",
        "version": 2,
        "targets": [" no", " yes"],
    }


def test_score_of_ids_in_json(terminal: Terminal) -> None:
    line = ("score", "5,6", "--ids", "-t", "7 8", "--compose", "a@2", "--decoder-input", "3")
    result = terminal.run(*line, "--json", steps=(httpx2.Response(200, json=score()),))
    assert json.loads(result.stdout) == score()
    assert sent_json(terminal.server.last) == {
        "compose": [{"task_id": "a", "version": 2}],
        "input": [5, 6],
        "decoder_input": [3],
        "targets": [[7, 8]],
    }


@pytest.mark.parametrize("line", ["score e2e x", "score a b c -t d", "score 5 --ids -t x"])
def test_usage_errors_of_score_exit_2(terminal: Terminal, line: str) -> None:
    assert terminal.run(*line.split()).exit_code == 2
    assert terminal.server.requests == []


def test_a_refused_score_exits_1(terminal: Terminal) -> None:
    result = terminal.run("score", "x", "-t", "y", steps=(refusal(403, "forbidden"),))
    assert result.exit_code == 1
    assert "403 forbidden" in result.stderr
