"""What importing the package gives, and what it does not load."""

from __future__ import annotations

import subprocess
import sys

import prefixmux
from prefixmux import errors

FORBIDDEN = ("torch", "numpy", "transformers", "fastapi", "prefixmux_server", "prefixmux_store")


def test_exports_are_sorted_and_exist() -> None:
    assert prefixmux.__all__ == sorted(prefixmux.__all__)
    assert all(hasattr(prefixmux, name) for name in prefixmux.__all__)


def test_every_error_is_exported_and_drawn_in_the_tree() -> None:
    classes = [
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.PrefixmuxError)
    ]
    assert sorted(classes) == errors.__all__
    assert set(classes) <= set(prefixmux.__all__)
    assert errors.__doc__ is not None
    assert [name for name in classes if name not in errors.__doc__] == []


def test_import_loads_neither_torch_nor_the_server() -> None:
    program = (
        f"import sys, prefixmux, prefixmux.cli; print([m for m in {FORBIDDEN} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_import_is_fast() -> None:
    """Processor time, which others on the machine do not change; the best of three."""
    program = "import time; import prefixmux; print(time.process_time())"
    times = [
        float(subprocess.check_output([sys.executable, "-c", program], timeout=60))
        for _ in range(3)
    ]
    assert min(times) < 0.5
