"""Lets the tests import the `bench` package, which lies in the repository but is not installed."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))
