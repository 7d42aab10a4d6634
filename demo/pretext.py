"""The pre-training texts: prose, unpaired task texts, and exercises made from one text alone.

No example ever pairs a task's input with its output. An exercise rewrites a text into itself
(copied, from its key words, into a table, ...) in the form "given => wanted", with nothing that
says which exercise it is. So the model has the skills that tasks need, and it takes a prefix to
say which of them is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from demo.data import read_pairs, read_paragraphs
from demo.tasks import PRETRAINING_PAIRS, SEPARATOR, spread

PROSE_SHARE = 0.06
PLAIN_SHARE = 0.28
EXERCISE_WORDS = 24
RENAMED_SHARE = 0.6


@dataclass(frozen=True)
class Draft:
    """A text to rewrite, as words, and the runs of words that stand for its content, in order."""

    words: Sequence[str]
    spans: Sequence[str]

    @property
    def text(self) -> str:
        return " ".join(self.words)


Exercise = Callable[[Draft, Random], tuple[str, str]]


def documents(data: Path, seed: int) -> Iterator[str]:
    """Pre-training documents without end, drawn with `seed`."""
    random = Random(seed)
    prose = read_paragraphs(data)
    names = sorted({word for piece in prose for word in piece.split() if word.isalnum()})
    texts = _task_texts(data)
    while True:
        kind = random.random()
        if kind < PROSE_SHARE:
            yield random.choice(prose)
            continue
        text = random.choice(random.choice(texts))
        yield text if kind < PROSE_SHARE + PLAIN_SHARE else exercise(text, names, random)


def exercise(text: str, names: Sequence[str], random: Random) -> str:
    """One exercise on `text`, as "given => wanted".

    Part of the text's content is first replaced by `names` drawn at random, which can only be
    had from the given side: that is what teaches the model to copy.
    """
    draft = _draft(text.split()[:EXERCISE_WORDS], names, random)
    given, wanted = random.choice(_EXERCISES)(draft, random)
    return f"{given}{SEPARATOR} {wanted}"


def _task_texts(data: Path) -> list[list[str]]:
    """Sources and targets of every permitted train split, as separate collections."""
    collections: list[list[str]] = []
    for name in PRETRAINING_PAIRS:
        pairs = read_pairs(data, name, "train")
        collections.append(sorted({spread(name, pair.source) for pair in pairs}))
        collections.append(sorted({pair.target for pair in pairs}))
    return collections


def _draft(words: Sequence[str], names: Sequence[str], random: Random) -> Draft:
    """Cuts the words into content and what lies between, and renames most of the content."""
    rewritten: list[str] = []
    spans: list[str] = []
    at = 0
    while at < len(words):
        between = at + random.randint(0 if spans else 1, 4)
        span = list(words[between : between + random.randint(1, 3)])
        if random.random() < RENAMED_SHARE:
            span = [random.choice(names) for _ in span]
        rewritten += [*words[at:between], *span]
        spans += [" ".join(span)] if span else []
        at = max(between, at) + max(1, len(span))
    return Draft(rewritten, spans or [" ".join(rewritten)])


def _copy(draft: Draft, random: Random) -> tuple[str, str]:
    return draft.text, draft.text


def _copy_content(draft: Draft, random: Random) -> tuple[str, str]:
    content = " ".join(draft.spans)
    return content, content


def _from_key_words(draft: Draft, random: Random) -> tuple[str, str]:
    spans = random.sample(draft.spans, len(draft.spans))
    return " | ".join(spans), draft.text


def _from_table(draft: Draft, random: Random) -> tuple[str, str]:
    spans = random.sample(draft.spans, len(draft.spans))
    if random.random() < 0.5:
        return " | ".join(f"{random.choice(draft.words)} : {span}" for span in spans), draft.text
    cells = " ; ".join(f"{random.choice(draft.words)} = {span}" for span in spans)
    return f"{draft.words[0]} ( {cells} )", draft.text


def _to_key_words(draft: Draft, random: Random) -> tuple[str, str]:
    return draft.text, " | ".join(draft.spans)


def _to_table(draft: Draft, random: Random) -> tuple[str, str]:
    return draft.text, " | ".join(f"{random.choice(draft.words)} = {s}" for s in draft.spans)


def _repeated(draft: Draft, random: Random) -> tuple[str, str]:
    few = list(draft.words[: random.randint(1, 6)])
    return " ".join(few), " ".join(few * random.randint(2, 4))


def _numbered(draft: Draft, random: Random) -> tuple[str, str]:
    places = sorted(random.sample(range(len(draft.words)), max(1, len(draft.words) // 2)))
    return draft.text, " ; ".join(f"{draft.words[place]} _ {place}" for place in places)


def _letters(draft: Draft, random: Random) -> tuple[str, str]:
    letters = " ".join(random.choice(draft.words))
    return letters, letters.upper()


_EXERCISES: tuple[Exercise, ...] = (
    _copy,
    _copy_content,
    _copy_content,
    _from_key_words,
    _from_table,
    _from_table,
    _from_table,
    _to_key_words,
    _to_table,
    _to_table,
    _repeated,
    _numbered,
    _letters,
)
