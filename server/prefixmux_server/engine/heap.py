"""What a process has loaded, kept out of the garbage collector's way.

Libraries and a model are hundreds of thousands of objects that live as long as the process. Each
full collection would walk them all, tens of milliseconds in which nobody is served.
"""

from __future__ import annotations

import gc


def keep_what_is_loaded() -> None:
    """Once all is loaded. Only what is made afterwards is looked at again."""
    gc.collect()
    gc.freeze()
