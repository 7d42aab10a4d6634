"""The program itself: completion, Ctrl-C, a reader that has had enough, a terminal."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from client.events import done, token

PROGRAM = [sys.executable, "-m", "prefixmux.cli"]
SECONDS = 60


def environment(**more: str) -> dict[str, str]:
    ours = {key: value for key, value in os.environ.items() if not key.startswith("PREFIXMUX_")}
    return {**ours, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **more}


@contextmanager
def streaming_server() -> Iterator[str]:
    """Answers every generation with a stream."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            self.wfile.write(token("a\x1b[2J ") + token("pub") + done())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_installs_itself(tmp_path: Path, shell: str) -> None:
    done = subprocess.run(
        ["prefixmux", "--install-completion", shell],
        env=environment(HOME=str(tmp_path), _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert "completion installed" in done.stdout
    installed = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("_PREFIXMUX_COMPLETE" in path.read_text() for path in installed)


@pytest.mark.parametrize(
    ("words", "offered"),
    [("prefixmux pre", "prefixes"), ("prefixmux prefixes pu", "push"), ("prefixmux sc", "score")],
)
def test_completion_offers_the_commands(words: str, offered: str) -> None:
    found = subprocess.run(
        ["prefixmux"],
        env=environment(
            _PREFIXMUX_COMPLETE="complete_bash",
            COMP_WORDS=words,
            COMP_CWORD=str(len(words.split()) - 1),
        ),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert offered in found.stdout.split()


def test_ctrl_c_while_waiting_exits_130_without_a_word() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(SECONDS)
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [*PROGRAM, "generate", "x", "--server", address],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A runner in the background ignores it, and children would, too.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        connection, _ = silent.accept()
        with connection:
            connection.recv(1)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out, err.strip()) == (130, "", "")


def test_a_reader_that_has_had_enough_gets_no_traceback() -> None:
    with streaming_server() as address:
        process = subprocess.Popen(
            [*PROGRAM, "generate", "x", "--stream", "--server", address],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A runner in the background ignores it, and children would, too.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
        process.wait(SECONDS)
        process.stderr.close()
    assert "Traceback" not in err


def test_on_a_terminal_the_answer_is_streamed_and_obeyed_by_nobody() -> None:
    """Nothing was asked for but the text: the server here only knows streams."""
    leader, follower = pty.openpty()
    with streaming_server() as address:
        finished = subprocess.run(
            [*PROGRAM, "generate", "x", "--server", address],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=follower,
            stderr=subprocess.PIPE,
            text=True,
            timeout=SECONDS,
        )
    os.close(follower)
    shown = os.read(leader, 4096).decode()
    os.close(leader)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert shown == "a?[2J pub\r\n"
