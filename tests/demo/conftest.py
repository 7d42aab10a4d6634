"""Lets the tests import the `demo` package, which lies in the repository but is not installed."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))
