"""A model's tokenizer, in a form that another process can use without transformers."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoTokenizer

_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


@dataclass(frozen=True)
class Tokenizer:
    """A fast tokenizer, as the `tokenizers` library's JSON. `special_tokens` are those that have
    a name (`bos_token`, ...), which a chat template may use."""

    json: str
    special_token_ids: tuple[int, ...]
    chat_template: str | None
    special_tokens: dict[str, str]


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
    return Tokenizer(
        json=tokenizer.backend_tokenizer.to_str(),
        special_token_ids=tuple(tokenizer.all_special_ids),
        chat_template=_chat_template(tokenizer.chat_template),
        special_tokens=dict(tokenizer.special_tokens_map),
    )


def _chat_template(found: str | dict[str, str] | None) -> str | None:
    """Of several, the one that transformers takes where none is asked for."""
    return found.get("default") if isinstance(found, dict) else found


def _log() -> logging.Logger:
    return logging.getLogger(__name__)
