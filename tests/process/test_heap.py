"""What is loaded is not walked again by every full collection."""

from __future__ import annotations

import subprocess
import sys

SERVER = """
import gc
import prefixmux_server.main
from prefixmux_server.engine.heap import keep_what_is_loaded
walked = len(gc.get_objects())
keep_what_is_loaded()
print(walked, len(gc.get_objects()), gc.isenabled())
"""


def test_a_full_collection_looks_at_what_is_new() -> None:
    told = subprocess.run(
        [sys.executable, "-c", SERVER], check=True, capture_output=True, text=True, timeout=60
    )
    before, after, enabled = told.stdout.split()
    assert int(before) > 50_000
    assert int(after) < 1000
    assert enabled == "True"
