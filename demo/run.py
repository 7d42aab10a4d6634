"""The demonstration: one frozen model, one batch, another task in every row.

    python -m demo.run [--keep-serving] [--port N]

Serves the bundled model in a process of its own, uploads the bundled prefixes, sends one mixed
batch, adds one more prefix while the server runs, and stops the server again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
from rich.console import Console
from rich.table import Table
from rich.text import Text

from demo.server import DemoError, serving
from demo.steps import fetch_steps, fullest_step, shared_steps
from demo.tasks import LATE_TASK, TASKS, Task
from prefixmux import Client, PrefixmuxError
from prefixmux.types import GenerateRequest, GenerateResponse

FOLDER = Path(__file__).parent
MAX_NEW_TOKENS = 100
WIDTH = 140


def load_examples() -> Mapping[str, Sequence[Mapping[str, str]]]:
    """Held-out examples of every task: `{"source", "target"}`."""
    examples: Mapping[str, Sequence[Mapping[str, str]]] = json.loads(
        (FOLDER / "examples.json").read_text(encoding="utf-8")
    )
    return examples


def upload(client: Client, task: Task) -> None:
    """Hands one bundled PEFT adapter to the running server."""
    client.prefixes.upload(task.task_id, FOLDER / "prefixes" / task.task_id)


def ask(client: Client, requests: Sequence[GenerateRequest]) -> list[GenerateResponse]:
    """One batch call; raises the first row's error, if one failed."""
    return [row.unwrap() for row in client.generate_many(requests)]


def request(task_id: str | None, prompt: str) -> GenerateRequest:
    """One row of a batch."""
    return GenerateRequest(task_id, prompt, parameters={"max_new_tokens": MAX_NEW_TOKENS})


def show(
    console: Console,
    title: str,
    requests: Sequence[GenerateRequest],
    responses: Sequence[GenerateResponse],
    steps: Sequence[Mapping[str, Any]],
) -> None:
    """Prints one table: what went in, what came out, and whom each row shared its steps with."""
    table = Table(title=title, show_lines=True)
    for name in ("row", "task", "prefix", "input", "output", "engine steps"):
        table.add_column(name, justify="right" if name in {"row", "prefix"} else "left")
    for number, (asked, answer) in enumerate(zip(requests, responses, strict=True)):
        table.add_row(
            str(number),
            asked.task_id or "(none)",
            str(answer.usage.prefix_tokens),
            Text(str(asked.input)),
            Text((answer.text or "").strip()),
            str(shared_steps(steps, answer.id) or "no longer recorded"),
        )
    console.print(table)


def demonstrate(base_url: str, console: Console) -> None:
    """Uploads, asks and shows. Raises PrefixmuxError or httpx2.HTTPError."""
    examples = load_examples()
    prompts = {task.task_id: task.prompt(examples[task.task_id][0]["source"]) for task in TASKS}
    with Client(base_url=base_url) as client:
        early = [task for task in TASKS if task.task_id != LATE_TASK]
        for task in early:
            upload(client, task)
        console.print(f"uploaded {len(early)} prefixes: {', '.join(t.task_id for t in early)}")
        requests = [request(task.task_id, prompts[task.task_id]) for task in early]
        requests.append(request(None, prompts["e2e"]))
        start = time.monotonic()
        responses = ask(client, requests)
        seconds = time.monotonic() - start
        steps = fetch_steps(base_url)
        title = f"one batch, {len(requests)} rows, {len(requests)} tasks: {seconds:.1f} s"
        show(console, title, requests, responses, steps)
        rows, tasks = fullest_step(steps)
        console.print(f"the fullest engine step held {rows} requests with {tasks} prefixes or none")
        add_while_running(client, base_url, prompts[LATE_TASK], console)


def add_while_running(client: Client, base_url: str, prompt: str, console: Console) -> None:
    """Uploads one more prefix to the running server and uses it at once."""
    late = next(task for task in TASKS if task.task_id == LATE_TASK)
    start = time.monotonic()
    upload(client, late)
    requests = [request(late.task_id, prompt)]
    responses = ask(client, requests)
    seconds = time.monotonic() - start
    title = f"added while the server runs, uploaded and answered in {seconds:.2f} s"
    show(console, title, requests, responses, fetch_steps(base_url))


def wait_for_interrupt(base_url: str, console: Console) -> None:
    """Prints calls to try and waits for Ctrl-C."""
    examples = load_examples()
    console.print(f"\nserving at {base_url}, stop with Ctrl-C; try:", highlight=False)
    for task in TASKS[:3]:
        body = {"task_id": task.task_id, "input": task.prompt(examples[task.task_id][1]["source"])}
        quoted = shlex.quote(json.dumps(body, ensure_ascii=False))
        line = f"curl -s {base_url}/generate -H 'content-type: application/json' -d {quoted}"
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    console.print(f"curl -s {base_url}/prefixes", highlight=False)
    try:
        signal.pause()
    except KeyboardInterrupt:
        console.print("stopping")


def main() -> None:
    """The command line; exit code 0 when all of it worked, 1 else."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep-serving", action="store_true", help="serve until Ctrl-C")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    arguments = parser.parse_args()
    terminal = sys.stdout.isatty()
    console = Console(width=None if terminal else WIDTH)
    # So that a plain kill, too, goes through the clean-up.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        with (
            tempfile.TemporaryDirectory(prefix="prefixmux-demo-") as folder,
            serving(FOLDER / "model", Path(folder), arguments.port) as base_url,
        ):
            console.print(f"server ready at {base_url}", highlight=False)
            demonstrate(base_url, console)
            if arguments.keep_serving:
                wait_for_interrupt(base_url, console)
        console.print("server stopped, exit code 0")
    except (DemoError, PrefixmuxError, httpx2.HTTPError) as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
