"""A process of its own that makes keys and adds usage: `python -m store.accountant FOLDER NAME
COUNT`.

Every round makes a key, revokes every other one, and adds one batch of usage to two tasks of its
own and one that all share. Each line of standard output acknowledges what has been done.
"""

from __future__ import annotations

import sys
from pathlib import Path

from prefixmux_store.store import PrefixStore
from prefixmux_store.usage import UsageEntry

TENANT = "default"
SHARED = "shared"


def batch(name: str) -> list[UsageEntry]:
    return [UsageEntry(TENANT, task, 1, 20, 3, 4) for task in (name, f"{name}-too", SHARED)]


def main(folder: str, name: str, count: str) -> None:
    with PrefixStore.open(Path(folder)) as store:
        for number in range(int(count)):
            made = store.keys.create(TENANT, ["read"], name)
            acknowledge(f"made {made.key}")
            if number % 2:
                store.keys.revoke(made.record.id)
                acknowledge(f"revoked {made.key}")
            store.usage.add(batch(name))
            acknowledge("used")


def acknowledge(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
