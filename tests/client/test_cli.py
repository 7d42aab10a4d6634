"""The client commands: what they send, print, and exit with."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx2
import pytest
from client.scripted import generation, refusal, sent_json, task, version
from client.terminal import Terminal

# The scripted tasks were made in the first seconds of 1970.
PASSED = f"{(time.time() - 2.5) // (365 * 86400):.0f} years ago".split()


def answer(text: str | None = "a pub") -> httpx2.Response:
    return httpx2.Response(200, json=generation(text))


def test_generate_prints_the_text_alone(terminal: Terminal) -> None:
    result = terminal.run("generate", "e2e", "name : Aromi", steps=(answer(),))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "a pub\n", "")
    assert sent_json(terminal.server.last) == {"task_id": "e2e", "input": "name : Aromi"}


def test_generate_passes_parameters(terminal: Terminal) -> None:
    line = "generate e2e x --version 2 --max-new-tokens 4 --temperature 0.5 --stop . --stop !"
    result = terminal.run(
        *line.split(), "-p", "min_p=0.1", "-p", "ignore_eos=true", steps=(answer(),)
    )
    assert result.exit_code == 0
    assert sent_json(terminal.server.last) == {
        "task_id": "e2e",
        "version": 2,
        "input": "x",
        "parameters": {
            "max_new_tokens": 4,
            "temperature": 0.5,
            "stop": [".", "!"],
            "min_p": 0.1,
            "ignore_eos": True,
        },
    }


def test_generate_takes_a_composition_a_decoder_input_and_beams(terminal: Terminal) -> None:
    line = (
        "generate x --compose a --compose b@2 --decoder-input y --num-beams 4 --num-return 2"
        " --length-penalty 0.8 --early-stopping never --no-repeat-ngram-size 3"
    )
    assert terminal.run(*line.split(), steps=(answer(),)).exit_code == 0
    assert sent_json(terminal.server.last) == {
        "compose": [{"task_id": "a"}, {"task_id": "b", "version": 2}],
        "input": "x",
        "decoder_input": "y",
        "parameters": {
            "num_beams": 4,
            "num_return": 2,
            "length_penalty": 0.8,
            "early_stopping": "never",
            "no_repeat_ngram_size": 3,
        },
    }


@pytest.mark.parametrize(("word", "value"), [("true", True), ("false", False)])
def test_early_stopping_is_a_word(terminal: Terminal, word: str, value: bool) -> None:
    terminal.run("generate", "x", "--early-stopping", word, steps=(answer(),))
    assert sent_json(terminal.server.last)["parameters"] == {"early_stopping": value}


def test_ids_are_ids_on_both_sides(terminal: Terminal) -> None:
    line = "generate 5,6 --ids --decoder-input 7"
    terminal.run(*line.split(), steps=(answer(),))
    assert sent_json(terminal.server.last) == {"input": [5, 6], "decoder_input": [7]}


def test_several_beams_are_printed_with_their_scores(terminal: Terminal) -> None:
    sequence: dict[str, object] = {"token_ids": [5], "finish_reason": "eos"}
    outputs = [
        {**sequence, "index": 0, "text": "a pub", "score": -0.25},
        {**sequence, "index": 1, "text": "a bar", "score": 0.0},
    ]
    beams = httpx2.Response(200, json=generation(outputs=outputs))
    result = terminal.run("generate", "e2e", "x", steps=(beams,))
    assert result.stdout == "-0.2500\ta pub\n0.0000\ta bar\n"


def test_generate_for_the_bare_model_reads_stdin(terminal: Terminal) -> None:
    terminal.run("generate", "-", steps=(answer(),), stdin="two\nlines\n")
    assert sent_json(terminal.server.last) == {"input": "two\nlines"}


def test_generate_with_ids_prints_ids_when_there_is_no_text(terminal: Terminal) -> None:
    result = terminal.run("generate", "e2e", "5,17 2", "--ids", steps=(answer(text=None),))
    assert sent_json(terminal.server.last)["input"] == [5, 17, 2]
    assert result.stdout == "5 6 2\n"


def test_generate_json_is_the_answer_of_the_wire(terminal: Terminal) -> None:
    result = terminal.run("generate", "e2e", "x", "--json", steps=(answer(),))
    assert json.loads(result.stdout) == generation()


@pytest.mark.parametrize(
    "line",
    [
        "generate",
        "generate a b c",
        "generate e2e x --ids",
        "generate e2e x -p min_p",
        "generate e2e x -p min_p=oops",
        "generate e2e x -p version=1",
        "generate e2e x -p compose=[]",
        "generate e2e x -p decoder_input=1",
        "generate e2e x --compose a",
        "generate x --compose a@",
        "generate x --compose a@b",
        "generate x --compose a@²",
        "generate x --ids",
        "generate 5 --ids --decoder-input y",
        "generate x --early-stopping yes",
        "generate e2e x --temperature warm",
        "generate e2e x --server localhost:8000",
        "generate e2e x --no-such-flag",
        "prefixes push e2e no-such-file",
        "prefixes push e2e",
        "prefixes push e2e --text no-such-file",
        "prefixes push e2e --examples no-such-file",
        "prefixes push e2e . --text pyproject.toml",
        "prefixes push e2e --text pyproject.toml --examples pyproject.toml",
        "prefixes push e2e --text pyproject.toml --task-index 1",
        "prefixes push e2e --text pyproject.toml -p top_k",
        "prefixes push e2e --examples pyproject.toml",
        "prefixes compose both",
        "prefixes compose both a@x",
        "prefixes activate e2e one",
        "no-such-command",
    ],
)
def test_usage_errors_exit_2_and_send_nothing(terminal: Terminal, line: str) -> None:
    result = terminal.run(*line.split())
    assert result.exit_code == 2
    assert terminal.server.requests == []
    assert "Traceback" not in result.output


def test_stdin_that_is_not_text_is_a_usage_error(terminal: Terminal) -> None:
    assert terminal.run("generate", "-", stdin=b"\xff\xfe").exit_code == 2


LINES = [
    "generate e2e x",
    "prefixes ls",
    "prefixes show e2e",
    "prefixes rm e2e",
    "prefixes activate e2e 1",
]


@pytest.mark.parametrize("line", LINES)
def test_a_refusal_exits_1_and_says_why(terminal: Terminal, line: str) -> None:
    result = terminal.run(*line.split(), steps=(refusal(404, "task_not_found"),))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: 404 task_not_found: about task_not_found [request r-1]\n"


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("failure", [httpx2.ConnectError("refused"), httpx2.ReadTimeout("slow")])
def test_an_unreachable_server_exits_3(terminal: Terminal, line: str, failure: Exception) -> None:
    result = terminal.run(*line.split(), "--server", "http://there:1", steps=(failure,))
    assert (result.exit_code, result.stdout) == (3, "")
    assert "http://there:1" in result.stderr


def test_json_errors_are_objects_on_stderr(terminal: Terminal) -> None:
    refused = refusal(422, "invalid_parameter", param="parameters.top_k")
    result = terminal.run("generate", "e2e", "x", "--json", steps=(refused,))
    assert (result.exit_code, result.stdout) == (1, "")
    assert json.loads(result.stderr)["error"] == {
        "code": "invalid_parameter",
        "message": "about invalid_parameter",
        "param": "parameters.top_k",
        "reason": None,
        "request_id": "r-1",
        "status": 422,
    }


def test_server_and_key_come_from_flags_or_environment(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFIXMUX_BASE_URL", "http://env")
    monkeypatch.setenv("PREFIXMUX_API_KEY", "env-key")
    terminal.run("generate", "e2e", "x", steps=(answer(),))
    assert (terminal.server.last.url.host, terminal.keys[-1]) == ("env", "env-key")
    flags = ("--server", "http://flag", "--api-key", "flag-key")
    terminal.run("generate", "e2e", "x", *flags, steps=(answer(),))
    assert (terminal.server.last.url.host, terminal.keys[-1]) == ("flag", "flag-key")


def test_push_uploads_and_names_the_version(terminal: Terminal, tmp_path: Path) -> None:
    path = tmp_path / "prefix.safetensors"
    path.write_bytes(b"bytes")
    created = httpx2.Response(201, json=version(4))
    flags = ("--no-activate", "--description", "a note")
    result = terminal.run("prefixes", "push", "e2e", str(path), *flags, steps=(created,))
    assert result.exit_code == 0
    assert result.stdout.startswith("e2e version 4 sha256:")
    sent = terminal.server.last.content
    assert b'name="activate"\r\n\r\nfalse' in sent
    assert b'name="description"\r\n\r\na note' in sent


def test_push_of_words(terminal: Terminal, tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_text("Be brief.\n\n", "utf-8")
    created = httpx2.Response(201, json=version())
    flags = ("--template", "Q: {input}", "-p", "top_k=1", "--no-activate", "--description", "d")
    result = terminal.run("prefixes", "push", "e2e", "--text", str(path), *flags, steps=(created,))
    assert result.exit_code == 0, result.output
    assert sent_json(terminal.server.last) == {
        "task_id": "e2e",
        "text": "Be brief.\n",
        "activate": False,
        "description": "d",
        "template": "Q: {input}",
        "parameters": {"top_k": 1},
    }


def test_push_of_examples(terminal: Terminal, tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    path.write_text('{"input": "hot", "output": "cold"}\n\n{"output": "b", "input": "a"}\n')
    created = httpx2.Response(201, json=version())
    result = terminal.run("prefixes", "push", "e2e", "--examples", str(path), steps=(created,))
    assert result.exit_code == 0, result.output
    assert sent_json(terminal.server.last) == {
        "task_id": "e2e",
        "examples": [{"input": "hot", "output": "cold"}, {"input": "a", "output": "b"}],
        "activate": True,
    }


@pytest.mark.parametrize(
    "line", [b"x", b"[]", b'{"input": "a"}', b'{"input": "a", "output": "b", "c": 1}', b"\xff"]
)
def test_a_line_that_is_no_example_is_named(
    terminal: Terminal, tmp_path: Path, line: bytes
) -> None:
    path = tmp_path / "examples.jsonl"
    path.write_bytes(b'{"input": "hot", "output": "cold"}\n' + line)
    result = terminal.run("prefixes", "push", "e2e", "--examples", str(path))
    assert result.exit_code == 2
    assert "line 2" in result.output or line == b"\xff"
    assert terminal.server.requests == []


def test_push_of_one_task_of_an_adapter(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_bytes(b"{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"tensors")
    flags = ("--task-index", "1", "--template", "{input}?", "-p", 'stop=["."]')
    created = httpx2.Response(201, json=version())
    result = terminal.run("prefixes", "push", "e2e", str(tmp_path), *flags, steps=(created,))
    assert result.exit_code == 0, result.output
    sent = terminal.server.last.content
    for name, value in (("task_index", "1"), ("template", "{input}?")):
        assert f'name="{name}"\r\n\r\n{value}\r\n'.encode() in sent
    assert b'name="parameters"\r\n\r\n{"stop": ["."]}\r\n' in sent


def test_compose(terminal: Terminal) -> None:
    created = httpx2.Response(201, json=version(2, task_id="both"))
    line = "prefixes compose both a b@2 --description d --template {input}! -p top_k=1"
    result = terminal.run(*line.split(), steps=(created,))
    assert result.stdout.startswith("both version 2 sha256:")
    assert sent_json(terminal.server.last) == {
        "task_id": "both",
        "compose": [{"task_id": "a"}, {"task_id": "b", "version": 2}],
        "activate": True,
        "description": "d",
        "template": "{input}!",
        "parameters": {"top_k": 1},
    }


def test_push_of_pickled_weights_is_refused_here(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "adapter.bin").write_bytes(b"\x80")
    result = terminal.run("prefixes", "push", "e2e", str(tmp_path / "adapter.bin"))
    assert result.exit_code == 1
    assert "save_pretrained" in result.stderr
    assert terminal.server.requests == []


def page(*items: dict[str, object]) -> httpx2.Response:
    return httpx2.Response(200, json={"items": items, "next_cursor": None})


def test_ls_shows_every_task_uncut(terminal: Terminal) -> None:
    long = "a" * 64
    result = terminal.run("prefixes", "ls", steps=(page(task(long), task("b", active=None)),))
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows == [
        ["TASK", "ACTIVE", "VERSIONS", "METHOD", "TOKENS", "SIZE", "WHERE", "UPDATED"],
        [long, "1", "1", "PREFIX_TUNING", "10", "4", "KiB", "disk", *PASSED],
        ["b", "-", "1", "-", "-", "-", "-", *PASSED],
    ]


def test_ls_json_holds_the_tasks_of_the_wire(terminal: Terminal) -> None:
    result = terminal.run("prefixes", "ls", "--json", "--query", "e", steps=(page(task()),))
    assert json.loads(result.stdout) == {"items": [task()]}
    assert terminal.server.last.url.params["query"] == "e"


def test_show_prints_a_task_and_its_versions_as_they_are(terminal: Terminal) -> None:
    described = version(1, description="[bold]:smile: & <b>")
    steps = (httpx2.Response(200, json=task()), page(described))
    result = terminal.run("prefixes", "show", "e2e", steps=steps)
    assert result.stdout.startswith("e2e: version 1 is active\n")
    assert "[bold]:smile: & <b>" in result.stdout
    assert str(described["prefix_digest"]) in result.stdout


def fields(output: str) -> dict[str, str]:
    """The lines of the version shown in full."""
    lines = output.partition("\n\n")[2].splitlines()[1:]
    return {line[:16].strip(): line[16:].strip() for line in lines}


def test_show_prints_the_active_version_in_full(terminal: Terminal) -> None:
    part = {"task_id": "a", "version": 2, "digest": "sha256:1", "tokens": 4, "method": "TEXT"}
    whole = version(
        1,
        method="COMPOSITION",
        sites={"cross": 3, "decoder": 10},
        bytes=1234567,
        base_fingerprint="sha256:f",
        parts=[part, part],
        template="Q: {input}\nA:\x1b[2J",
        parameters={"stop": ["\x9b"], "top_k": 1},
    )
    steps = (httpx2.Response(200, json=task() | {"active": whole}), page(whole))
    result = terminal.run("prefixes", "show", "e2e", steps=steps)
    found = fields(result.stdout)
    assert found["method"] == "COMPOSITION"
    assert found["tokens"] == "10 (cross 3, decoder 10)"
    assert found["bytes"] == "1,234,567"
    assert (found["base model"], found["base fingerprint"]) == ("-", "sha256:f")
    assert found["part 2"] == "a@2  TEXT  4 tokens  sha256:1"
    assert found["template"] == r"'Q: {input}\nA:\x1b[2J'"
    assert found["defaults"] == r"stop=['\x9b'], top_k=1"


def test_show_of_another_version(terminal: Terminal) -> None:
    steps = (
        httpx2.Response(200, json=task()),
        httpx2.Response(200, json=version(2, method="TEXT")),
        page(version(1), version(2, method="TEXT")),
    )
    result = terminal.run("prefixes", "show", "e2e", "--version", "2", steps=steps)
    assert terminal.server.requests[1].url.path == "/prefixes/e2e/versions/2"
    assert fields(result.stdout)["method"] == "TEXT"


def test_show_of_a_task_that_serves_nothing(terminal: Terminal) -> None:
    steps = (httpx2.Response(200, json=task(active=None)), page(version(1)))
    result = terminal.run("prefixes", "show", "e2e", steps=steps)
    assert result.stdout.startswith("e2e: version - is active\n")
    assert fields(result.stdout) == {}


def test_nothing_shown_is_obeyed_by_a_terminal(terminal: Terminal) -> None:
    hostile = version(1, base_model="a\x1b[2Jb\u202e")
    steps = (httpx2.Response(200, json=task() | {"active": hostile}), page(hostile))
    result = terminal.run("prefixes", "show", "e2e", steps=steps)
    assert fields(result.stdout)["base model"] == "a?[2Jb?"


def test_show_json(terminal: Terminal) -> None:
    steps = (httpx2.Response(200, json=task()), page(version(1), version(2)))
    result = terminal.run("prefixes", "show", "e2e", "--json", steps=steps)
    assert json.loads(result.stdout) == {"task": task(), "versions": [version(1), version(2)]}


@pytest.mark.parametrize(
    ("flags", "path", "said"),
    [
        ((), "/prefixes/e2e", "deleted e2e\n"),
        (("--version", "2"), "/prefixes/e2e/versions/2", "deleted e2e version 2\n"),
    ],
)
def test_rm(terminal: Terminal, flags: tuple[str, ...], path: str, said: str) -> None:
    result = terminal.run("prefixes", "rm", "e2e", *flags, steps=(httpx2.Response(204),))
    assert (result.exit_code, result.stdout) == (0, said)
    assert (terminal.server.last.method, terminal.server.last.url.path) == ("DELETE", path)


def test_activate(terminal: Terminal) -> None:
    done = httpx2.Response(200, json=task(active=2))
    result = terminal.run("prefixes", "activate", "e2e", "2", steps=(done,))
    assert result.stdout == "e2e: version 2 is active\n"
