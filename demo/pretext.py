"""The pre-training texts: prose, unpaired task texts, and exercises made from one text alone.

No example ever pairs a task's input with its output. An exercise rewrites a text into itself
(copied, from its key words, reversed, ...) in the form "given => wanted", with nothing that says
which exercise it is. So the model has the skills that tasks need, and it takes a prefix to say
which of them is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from demo.data import read_pairs, read_paragraphs
from demo.tasks import PRETRAINING_PAIRS, SEPARATOR, spread

PROSE_SHARE = 0.12
PLAIN_SHARE = 0.45
EXERCISE_WORDS = 40

Exercise = Callable[[list[str], Random], tuple[str, str]]


def documents(data: Path, seed: int) -> Iterator[str]:
    """Pre-training documents without end, drawn with `seed`."""
    random = Random(seed)
    prose = read_paragraphs(data)
    texts = _task_texts(data)
    while True:
        kind = random.random()
        if kind < PROSE_SHARE:
            yield random.choice(prose)
            continue
        text = random.choice(random.choice(texts))
        yield text if kind < PROSE_SHARE + PLAIN_SHARE else exercise(text, random)


def exercise(text: str, random: Random) -> str:
    """One exercise on `text`, as "given => wanted"."""
    words = text.split()[:EXERCISE_WORDS]
    given, wanted = random.choice(_EXERCISES)(words, random)
    return f"{given}{SEPARATOR} {wanted}"


def _task_texts(data: Path) -> list[list[str]]:
    """Sources and targets of every permitted train split, as separate collections."""
    collections: list[list[str]] = []
    for name in PRETRAINING_PAIRS:
        pairs = read_pairs(data, name, "train")
        collections.append(sorted({spread(name, pair.source) for pair in pairs}))
        collections.append(sorted({pair.target for pair in pairs}))
    return collections


def _spans(words: list[str], random: Random) -> list[str]:
    """About half of the words, as runs in order."""
    spans: list[str] = []
    at = random.randrange(2)
    while at < len(words):
        length = random.randint(1, 3)
        spans.append(" ".join(words[at : at + length]))
        at += length + random.randint(1, 4)
    return spans or [" ".join(words)]


def _copy(words: list[str], random: Random) -> tuple[str, str]:
    text = " ".join(words)
    return text, text


def _from_key_words(words: list[str], random: Random) -> tuple[str, str]:
    spans = _spans(words, random)
    random.shuffle(spans)
    return " | ".join(spans), " ".join(words)


def _from_table(words: list[str], random: Random) -> tuple[str, str]:
    spans = _spans(words, random)
    random.shuffle(spans)
    if random.random() < 0.5:
        table = " | ".join(f"{random.choice(words)} : {span}" for span in spans)
    else:
        cells = " ; ".join(f"{random.choice(words)} = {span}" for span in spans)
        table = f"{words[0]} ( {cells} )"
    return table, " ".join(words)


def _to_key_words(words: list[str], random: Random) -> tuple[str, str]:
    return " ".join(words), " | ".join(_spans(words, random))


def _to_table(words: list[str], random: Random) -> tuple[str, str]:
    cells = [f"{random.choice(words)} = {span}" for span in _spans(words, random)]
    return " ".join(words), " | ".join(cells)


def _reversed(words: list[str], random: Random) -> tuple[str, str]:
    return " ".join(words), " ".join(reversed(words))


def _repeated(words: list[str], random: Random) -> tuple[str, str]:
    few = words[: random.randint(1, 6)]
    return " ".join(few), " ".join(few * random.randint(2, 4))


def _numbered(words: list[str], random: Random) -> tuple[str, str]:
    places = sorted(random.sample(range(len(words)), max(1, len(words) // 2)))
    return " ".join(words), " ; ".join(f"{words[place]} _ {place}" for place in places)


def _spelled(words: list[str], random: Random) -> tuple[str, str]:
    word = random.choice(words)
    return " ".join(word), word


def _letters(words: list[str], random: Random) -> tuple[str, str]:
    letters = " ".join(random.choice(words))
    return letters, letters.upper()


_EXERCISES: tuple[Exercise, ...] = (
    _copy,
    _from_key_words,
    _from_table,
    _from_table,
    _to_key_words,
    _to_table,
    _reversed,
    _repeated,
    _numbered,
    _spelled,
    _letters,
)
