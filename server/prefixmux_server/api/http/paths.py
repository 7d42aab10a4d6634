"""What a client writes into a path: names that cannot exist are answered like ones that do not."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Path

from prefixmux_server.api.http.values import MAX_VERSION
from prefixmux_store.errors import TaskNotFound, VersionNotFound
from prefixmux_store.names import is_name

NUMBER = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)


async def known_task_id(task_id: Annotated[str, Path(examples=["e2e"])]) -> str:
    if not is_name(task_id):
        raise TaskNotFound
    return task_id


async def known_version(version: Annotated[str, Path(examples=["1"])]) -> int:
    if not NUMBER.fullmatch(version) or int(version) > MAX_VERSION:
        raise VersionNotFound
    return int(version)


PathTask = Annotated[str, Depends(known_task_id)]
PathVersion = Annotated[int, Depends(known_version)]
