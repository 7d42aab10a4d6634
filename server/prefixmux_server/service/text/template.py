"""Text around what a request or an example says: `{input}` and `{output}` are places, all else is
text. No format language, and what is put into a place is never looked at again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from prefixmux_store.checks import INPUT

OUTPUT = "{output}"
PLACES = re.compile("|".join(map(re.escape, (INPUT, OUTPUT))))
# Of a filled template: one that repeats a long text would fill the memory, and hold up everybody.
MAX_CHARACTERS = 1 << 20


def filled_size(template: str, texts: Mapping[str, str]) -> int:
    """Characters of `fill`, at most: places are counted as text, too."""
    return len(template) + sum(template.count(place) * len(text) for place, text in texts.items())


def fill(template: str, texts: Mapping[str, str]) -> str:
    """Every place that `texts` names, in one pass."""
    return PLACES.sub(lambda found: texts.get(found[0], found[0]), template)
