"""Pages of tasks, all or those whose names hold a text, as fast among many tasks as among few.

Every name's runs of three characters are indexed, in the order of the names: so a search walks
along the rarest run of its text, in the order of the answer, and ends with the page.
"""

from __future__ import annotations

import sqlite3

from prefixmux_store.rows import TASK_COLUMNS, VERSION_COLUMNS, task_of
from prefixmux_store.types import Task

RUN = 3
_FEW = 16
_MANY = 128

_ACTIVE = "v.tenant = t.tenant AND v.task_id = t.task_id AND v.version = t.active"
# instr, not LIKE: no wildcards to escape, and it tells cases apart.
_SCAN = f"""
SELECT {TASK_COLUMNS}, {VERSION_COLUMNS} FROM task t LEFT JOIN version v ON {_ACTIVE}
WHERE t.tenant = ? AND t.task_id > ? AND instr(t.task_id, ?) > 0 ORDER BY t.task_id LIMIT ?
"""
_WALK = f"""
SELECT {TASK_COLUMNS}, {VERSION_COLUMNS}
FROM gram g CROSS JOIN task t ON t.tenant = g.tenant AND t.task_id = g.task_id
    LEFT JOIN version v ON {_ACTIVE}
WHERE g.tenant = ? AND g.gram = ? AND g.task_id > ? AND instr(g.task_id, ?) > 0
ORDER BY g.task_id LIMIT ?
"""
_COUNT = """
SELECT count(*) FROM (SELECT 1 FROM gram WHERE tenant = ? AND gram = ? AND task_id > ? LIMIT ?)
"""


def tasks(db: sqlite3.Connection, tenant: str, limit: int, after: str, query: str) -> list[Task]:
    """By task_id, those greater than `after` that contain `query`."""
    if len(query) < RUN:
        # Hardly rare: what it skips is little.
        rows = db.execute(_SCAN, (tenant, after, query, limit))
    else:
        run = _rarest(db, tenant, after, query)
        rows = db.execute(_WALK, (tenant, run, after, query, limit))
    return [task_of(row) for row in rows]


def _rarest(db: sqlite3.Connection, tenant: str, after: str, query: str) -> str:
    """The run of `query` that fewest names have, or one that few have."""
    best, least = query[:RUN], _MANY
    for run in {query[at : at + RUN] for at in range(len(query) - RUN + 1)}:
        names = db.execute(_COUNT, (tenant, run, after, least)).fetchone()[0]
        if names < least:
            best, least = run, names
        if least < _FEW:
            break
    return best
