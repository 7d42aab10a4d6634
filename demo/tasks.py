"""The demo's tasks: what each one turns into what, and the exact text that a caller sends.

A prompt is the task's input followed by the separator; the model answers with a space, the
output and the end-of-sequence token. Nothing here knows where data lives or how it is learned.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SEPARATOR = " =>"


@dataclass(frozen=True)
class Task:
    """One task: the prefix that is bundled for it and how its pairs become prompts.

    `pairs` names the data set (with `reverse` its targets are the inputs); `prefix_tokens` is the
    length of the prefix. Dialogue acts are sent with spaces around their signs, so that a name has
    the same tokens in the act and in the sentence.
    """

    task_id: str
    pairs: str
    title: str
    prefix_tokens: int
    reverse: bool = False

    def source(self, text: str) -> str:
        """The input as a person sees it in a prompt, without the separator."""
        return spread(self.pairs, text)

    def prompt(self, text: str) -> str:
        """The exact `input` string of a request."""
        return self.source(text) + SEPARATOR

    def answer(self, text: str) -> str:
        """What the model is taught to continue a prompt with, before the end of sequence."""
        return " " + text


TASKS: tuple[Task, ...] = (
    Task("hotel", "rnnlg_hotel", "hotel act to sentence", 5),
    Task("restaurant", "rnnlg_restaurant", "restaurant act to sentence", 8),
    Task("laptop", "rnnlg_laptop", "laptop act to sentence", 10),
    Task("tv", "rnnlg_tv", "television act to sentence", 16),
    Task("e2e", "e2e", "restaurant table to sentence", 20),
    Task("snips", "snips", "command to intent and slots", 32),
    Task("regex", "nl2regex", "description to regular expression", 50),
    Task("table", "e2e", "sentence to restaurant table", 64, reverse=True),
)

# Uploaded by `demo.run` while the server is already answering for the others.
LATE_TASK = "table"

PRETRAINING_PAIRS: tuple[str, ...] = (
    "e2e",
    "rnnlg_hotel",
    "rnnlg_restaurant",
    "rnnlg_laptop",
    "rnnlg_tv",
    "g2p",
    "scan",
    "cogs",
    "snips",
    "nl2regex",
    "mt_enes",
)


def spread(pairs: str, text: str) -> str:
    """A dialogue act with single spaces around its signs; any other text as it is."""
    if not pairs.startswith("rnnlg_"):
        return text
    return " ".join(re.sub(r"([()=;?])", r" \1 ", text.replace("'", "")).split())


def task(task_id: str) -> Task:
    """The task of that name. Raises KeyError."""
    return {each.task_id: each for each in TASKS}[task_id]
