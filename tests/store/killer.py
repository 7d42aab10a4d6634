"""Kills writers at random moments: `python -m store.killer FOLDER SEED CYCLES [early]`.

Each cycle forks two writers with tasks of their own and few blobs in common, reads their
acknowledgements (one line after each returned operation), kills both, reopens the store and
compares. Of each writer's work, every acknowledged operation has to be there, and the next one
wholly or not at all. Prints a JSON account. With `early`, writers acknowledge before they act: a
control that has to be found out.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from prefixmux_store.store import PrefixStore
from store.ledger import EMPTY, TENANT, Op, State, expected, observed, perform
from store.writer import random_op

LONGEST_LIFE_S = 0.05


class Writer:
    """A forked process that works until it is killed."""

    def __init__(self, root: Path, names: list[str], seed: str, *, early: bool) -> None:
        self.names = names
        self._draw = random.Random(seed)
        self._told = b""
        self.pipe, end = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._work(root, end, early)
            finally:
                os._exit(1)
        os.close(end)

    def _work(self, root: Path, pipe: int, early: bool) -> None:
        store = PrefixStore.open(root)
        while True:
            op = random_op(self._draw, self.names)
            if early:
                os.write(pipe, b"early\n")
            outcome = perform(store, op)
            if not early:
                os.write(pipe, f"{outcome}\n".encode())

    def read(self) -> None:
        self._told += os.read(self.pipe, 65536)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        while chunk := os.read(self.pipe, 65536):
            self._told += chunk
        os.close(self.pipe)

    def story(self) -> tuple[list[tuple[Op, str]], Op]:
        """Acknowledged operations with their outcomes, and the one that may have begun."""
        outcomes = self._told.decode().splitlines()
        done = [(random_op(self._draw, self.names), outcome) for outcome in outcomes]
        return done, random_op(self._draw, self.names)


def live(writers: list[Writer], seconds: float) -> None:
    """So many seconds of a machine that has nothing else to do."""
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    deadline = time.monotonic() + seconds * busy
    while (rest := deadline - time.monotonic()) > 0:
        for pipe in select.select([writer.pipe for writer in writers], [], [], rest)[0]:
            next(writer for writer in writers if writer.pipe == pipe).read()


def judge(writer: Writer, before: State, store: PrefixStore, account: Counter[str]) -> State:
    """The state that goes on; counts what is wrong."""
    done, next_op = writer.story()
    state = before
    for op, outcome in done:
        state, right = expected(state, op)
        account["acknowledged"] += 1
        account["violations"] += outcome not in {right, "early"}
    after, _ = expected(state, next_op)
    names = frozenset(writer.names)
    found = {name: task for name, task in observed(store).items() if name in names}
    if found == after.of(names):
        account["begun and there"] += after != state
        # Which number was given last shows only in what is there.
        return after if after.of(names) != state.of(names) else state
    account["begun and not there"] += 1
    account["violations"] += found != state.of(names)
    return State(found, state.last)


def main(folder: str, seed: str, cycles: str, *early: str) -> None:
    root, draw = Path(folder), random.Random(int(seed))
    names = [["a-1", "a-2", "a-3"], ["b-1", "b-2", "b-3"]]
    states = [EMPTY, EMPTY]
    account: Counter[str] = Counter(violations=0)
    for cycle in range(int(cycles)):
        writers = [
            Writer(root, names[number], f"{seed}/{cycle}/{number}", early=bool(early))
            for number in range(2)
        ]
        live(writers, draw.uniform(0.002, LONGEST_LIFE_S))
        for writer in writers:
            writer.kill()
        blobs = root / "blobs" / TENANT
        account["half-written files"] += len(list(blobs.glob(".tmp-*")))
        with PrefixStore.open(root) as store:
            states = [
                judge(writer, state, store, account)
                for writer, state in zip(writers, states, strict=True)
            ]
            account["violations"] += not store.verify().ok
            account["violations"] += len(list(blobs.glob(".tmp-*")))
            if cycle % 10 == 9:
                store.gc(-10)
                needed = {digest for state in states for digest in state.digests}
                held = {f"sha256:{path.name}" for path in blobs.glob("*")}
                account["violations"] += held != needed
        account["cycles"] += 1
    sys.stdout.write(json.dumps(account))


if __name__ == "__main__":
    main(*sys.argv[1:])
