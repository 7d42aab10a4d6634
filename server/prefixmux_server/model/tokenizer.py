"""A model's tokenizer, in a form that another process can use without transformers."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoTokenizer

_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


@dataclass(frozen=True)
class Tokenizer:
    """A fast tokenizer, as the `tokenizers` library's JSON."""

    json: str
    special_token_ids: tuple[int, ...]
    chat_template: str | None


def load_tokenizer(folder: Path) -> Tokenizer | None:
    """None where the folder has no fast tokenizer: then only token ids are served."""
    if not any((folder / name).exists() for name in _FILES):
        return None
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # noqa: BLE001 - a broken file makes transformers raise anything
        _log().warning("the tokenizer cannot be read (%s): ids only", type(error).__name__)
        return None
    if not tokenizer.is_fast:
        _log().warning("the model has no fast tokenizer: ids only")
        return None
    template = tokenizer.chat_template
    return Tokenizer(
        json=tokenizer.backend_tokenizer.to_str(),
        special_token_ids=tuple(tokenizer.all_special_ids),
        chat_template=template if isinstance(template, str) else None,
    )


def _log() -> logging.Logger:
    return logging.getLogger(__name__)
