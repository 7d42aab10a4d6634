"""A process of its own that works on a store: `python -m store.writer FOLDER SEED COUNT NAMES`.

Writes the outcome of every operation to standard output, one line each.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from prefixmux_store.store import PrefixStore
from store.ledger import EMPTY, Op, expected, perform


def random_op(draw: random.Random, names: list[str], contents: int = 5) -> Op:
    """Mostly uploads; some are composed or taken back, and collections come now and then."""
    name = draw.choice(names)
    match draw.randrange(14):
        case 0:
            return Op("delete_task", name)
        case 1 | 2:
            return Op("delete_version", name, version=draw.randrange(1, 9))
        case 3:
            return Op("activate", name, version=draw.randrange(1, 9))
        case 4:
            return Op("gc")
        case 5:
            return Op("quiet_put", name, draw.randrange(contents))
        case 6:
            return Op("discard", content=draw.randrange(contents))
        case 7:
            return Op("compose", name, parts=tuple(draw.choices(names, k=draw.randrange(1, 4))))
        case _:
            return Op("put", name, draw.randrange(contents))


def main(folder: str, seed: str, count: str, *names: str) -> None:
    """Ends with an error if an outcome is not the one that the ledger of these names tells."""
    draw = random.Random(int(seed))
    state = EMPTY
    with PrefixStore.open(Path(folder)) as store:
        for _ in range(int(count)):
            op = random_op(draw, list(names))
            state, outcome = expected(state, op)
            found = perform(store, op)
            if found != outcome:
                sys.exit(f"{op}: {found}, not {outcome}")
    tasks = {name: task.versions for name, task in sorted(state.tasks.items())}
    sys.stdout.write(f"{tasks}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
