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

import httpx2
from rich.console import Console

from demo.server import DemoError, serving
from demo.show import Row, show
from demo.steps import fetch_steps, fullest_step
from demo.tasks import LATE_TASK, TASKS, task
from prefixmux import Client, GenerateRequest, PrefixmuxError
from prefixmux.types import GenerateResponse

FOLDER = Path(__file__).parent
MAX_NEW_TOKENS = 100
WIDTH = 160
# The bare model gets this task's input, so that the two outputs can be compared.
BARE_AS = "e2e"


def load_examples() -> Mapping[str, Sequence[Mapping[str, str]]]:
    """Held-out examples of every task: `{"source", "target"}`."""
    examples: Mapping[str, Sequence[Mapping[str, str]]] = json.loads(
        (FOLDER / "examples.json").read_text(encoding="utf-8")
    )
    return examples


def example_row(task_id: str) -> Row:
    """The first held-out example of a task, as a row to send."""
    example = load_examples()[task_id][0]
    return Row(task_id, task(task_id).prompt(example["source"]), example["target"])


def upload(client: Client, task_id: str) -> None:
    """Hands one bundled PEFT adapter to the running server."""
    client.prefixes.upload(task_id, FOLDER / "prefixes" / task_id)


def ask(client: Client, rows: Sequence[Row]) -> list[GenerateResponse]:
    """One batch call. Raises the first failed row's error."""
    parameters = {"max_new_tokens": MAX_NEW_TOKENS}
    requests = [GenerateRequest(row.task_id, row.prompt, parameters=parameters) for row in rows]
    return [answer.unwrap() for answer in client.generate_many(requests)]


def one_mixed_batch(client: Client, base_url: str, console: Console) -> None:
    """Another task in every row, and one row without any, in a single call."""
    names = [each.task_id for each in TASKS if each.task_id != LATE_TASK]
    for name in names:
        upload(client, name)
    console.print(f"uploaded {len(names)} prefixes: {', '.join(names)}\n")
    rows = [example_row(name) for name in names]
    rows.append(Row(None, example_row(BARE_AS).prompt, None))
    start = time.monotonic()
    responses = ask(client, rows)
    seconds = time.monotonic() - start
    steps = fetch_steps(base_url)
    title = f"one batch: {len(names)} tasks and the bare model, {seconds:.1f} s"
    show(console, title, rows, responses, steps)
    held, tasks = fullest_step(steps)
    console.print(f"the fullest engine step held {held} rows, of {tasks} different tasks\n")


def add_while_running(client: Client, base_url: str, console: Console) -> None:
    """Uploads one more prefix to the running server and uses it at once."""
    start = time.monotonic()
    upload(client, LATE_TASK)
    rows = [example_row(LATE_TASK)]
    responses = ask(client, rows)
    seconds = time.monotonic() - start
    title = f"one more task while the server runs, uploaded and answered in {seconds:.2f} s"
    show(console, title, rows, responses, fetch_steps(base_url))


def wait_for_interrupt(base_url: str, console: Console) -> None:
    """Prints calls to try and waits for Ctrl-C."""
    examples = load_examples()
    console.print(f"\nserving at {base_url}, stop with Ctrl-C; try:", highlight=False)
    for each in TASKS[:3]:
        body = {"task_id": each.task_id, "input": each.prompt(examples[each.task_id][1]["source"])}
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
            with Client(base_url=base_url) as client:
                one_mixed_batch(client, base_url, console)
                add_while_running(client, base_url, console)
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
