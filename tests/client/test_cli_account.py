"""`usage`, `status`, `health`, `requests timeline`, and pins and pulls of `prefixes`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import httpx2
import pytest
from client.scripted import Step, refusal, sent_json, version
from client.terminal import Terminal
from client.test_client import MODEL, USAGE


def answer(body: object, status: int = 200) -> httpx2.Response:
    return httpx2.Response(status, json=body)


def test_usage_shows_what_is_used_of_what(terminal: Terminal) -> None:
    result = terminal.run("usage", steps=(answer(USAGE),))
    words = " ".join(result.stdout.split())
    assert "tenant acme tasks 2 of 10 versions 3 bytes 4 KiB" in words
    assert "weight 2.0" in words
    assert "(bare model) 1 4 0 3" in words


def test_usage_in_json_is_that_of_the_wire(terminal: Terminal) -> None:
    found = json.loads(terminal.run("usage", "--json", steps=(answer(USAGE),)).stdout)
    assert {**found, "limits": USAGE["limits"]} == USAGE


@pytest.mark.parametrize(
    ("body", "status", "code", "shown"),
    [
        ({"status": "ready"}, 200, 0, "ready\n"),
        ({"status": "starting", "reason": "loading"}, 503, 1, "starting: loading\n"),
    ],
)
def test_health_is_an_exit_status(
    terminal: Terminal, body: object, status: int, code: int, shown: str
) -> None:
    result = terminal.run("health", steps=(answer(body, status),))
    assert (result.exit_code, result.stdout) == (code, shown)


def test_status_shows_version_and_model(terminal: Terminal) -> None:
    steps: tuple[Step, ...] = (
        answer({"status": "ready"}),
        answer({"version": "0.1.0"}),
        answer(MODEL),
    )
    result = terminal.run("status", steps=steps)
    assert result.exit_code == 0
    assert "tiny (causal, 2 layers)" in result.stdout
    assert "decoder [2, 2, P, 1, 8]" in result.stdout


def test_status_of_a_server_that_starts_exits_1_and_asks_no_more(terminal: Terminal) -> None:
    steps = (answer({"status": "starting"}, 503), answer({"version": "0.1.0"}))
    result = terminal.run("status", "--json", steps=steps)
    assert result.exit_code == 1
    assert json.loads(result.stdout)["model"] is None


def phase(steps: int, spent: float) -> dict[str, object]:
    rows = {"min": 1, "mean": 2.5, "max": 4} if steps else dict.fromkeys(("min", "mean", "max"))
    named = {"steps": steps, "tokens": 2 * steps, "seconds": spent, "step_seconds": spent / 2}
    return {**named, "rows": rows, "tasks": rows}


TIMELINE = {
    "id": "g-1",
    "request_id": "r-1",
    "task_id": "e2e",
    "version": 3,
    "outcome": "ok",
    "started_at": 1.5,
    "total_s": 2.0,
    "queue_s": 0.5,
    "prefix_load_s": 0.25,
    "ttft_s": 0.7,
    "prefill": phase(1, 0.2),
    "decode": phase(3, 1.0),
    "other_s": 0.3,
    "prompt_tokens": 4,
    "prefix_tokens": 10,
    "generated_tokens": 3,
    "encoder_tokens": 0,
    "preemptions": 0,
}


def test_a_timeline_says_where_the_time_went(terminal: Terminal) -> None:
    result = terminal.run("requests", "timeline", "r-1", steps=(answer(TIMELINE),))
    assert terminal.server.last.url.path == "/requests/r-1/timeline"
    rows = {" ".join(line.split()) for line in result.stdout.splitlines()}
    assert "task e2e version 3" in rows
    assert "first token after 700 ms" in rows
    assert "prefix load 250 ms 12% " + "\u2588" * 3 in rows
    assert "decode 1 s 50% 3 6 1-4, 2.5 1-4, 2.5 " + "\u2588" * 12 in rows


def test_a_request_that_never_ran_has_a_timeline(terminal: Terminal) -> None:
    nothing = TIMELINE | {
        "outcome": "deadline_exceeded",
        "task_id": None,
        "version": None,
        "ttft_s": None,
        "total_s": 0.0,
        "prefill": phase(0, 0.0),
        "decode": phase(0, 0.0),
    }
    result = terminal.run("requests", "timeline", "r-1", steps=(answer(nothing),))
    assert result.exit_code == 0
    assert "(bare model)" in result.stdout


def test_a_timeline_in_json_is_that_of_the_wire(terminal: Terminal) -> None:
    result = terminal.run("requests", "timeline", "r-1", "--json", steps=(answer(TIMELINE),))
    assert json.loads(result.stdout) == TIMELINE


@pytest.mark.parametrize(("word", "pinned"), [("pin", True), ("unpin", False)])
def test_pin_and_unpin(terminal: Terminal, word: str, pinned: bool) -> None:
    steps = (answer(version(2, pinned=pinned)),)
    result = terminal.run("prefixes", word, "e2e", "--version", "2", steps=steps)
    state = "pinned" if pinned else "not pinned"
    assert result.stdout == f"e2e: version 2 is {state}\n"
    assert sent_json(terminal.server.last) == {"version": 2, "pinned": pinned}


def test_versions_are_listed(terminal: Terminal) -> None:
    items = [version(1), version(2, pinned=True, residency="device", bytes=5 << 20)]
    page = answer({"items": items, "next_cursor": None})
    result = terminal.run("prefixes", "versions", "e2e", steps=(page,))
    assert "device, pinned" in result.stdout
    assert "5 MiB" in result.stdout
    shown = terminal.run("prefixes", "versions", "e2e", "--json", steps=(page,)).stdout
    assert json.loads(shown) == {"items": items}


def test_pull_writes_the_file(terminal: Terminal, tmp_path: Path) -> None:
    digest = f"sha256:{hashlib.sha256(b'native').hexdigest()}"
    steps = (
        answer(version(2, prefix_digest=digest)),
        httpx2.Response(200, content=b"native"),
    )
    path = tmp_path / "out.safetensors"
    result = terminal.run("prefixes", "pull", "e2e", str(path), "--version", "2", steps=steps)
    assert result.stdout == f"{path}: e2e version 2 {digest}\n"
    assert path.read_bytes() == b"native"


def test_pull_of_damaged_bytes_exits_1(terminal: Terminal, tmp_path: Path) -> None:
    steps = (answer(version(2)), httpx2.Response(200, content=b"nativ"))
    path = tmp_path / "out"
    result = terminal.run("prefixes", "pull", "e2e", str(path), "--version", "2", steps=steps)
    assert result.exit_code == 1
    assert not path.exists()


@pytest.mark.parametrize(
    "line",
    [
        "usage",
        "requests timeline r-1",
        "prefixes pin e2e",
        "prefixes versions e2e",
        "score x -t y",
    ],
)
def test_refusals_and_unreachable_servers_have_their_exit_codes(
    terminal: Terminal, line: str
) -> None:
    refused = terminal.run(*line.split(), "--json", steps=(refusal(403, "forbidden"),))
    assert refused.exit_code == 1
    assert json.loads(refused.stderr)["error"]["code"] == "forbidden"
    gone = terminal.run(*line.split(), "--json", steps=(httpx2.ConnectError("refused"),))
    assert gone.exit_code == 3
    assert json.loads(gone.stderr)["error"]["code"] is None
