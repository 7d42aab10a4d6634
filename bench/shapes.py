"""Sizes of the models that are measured, and what follows from them: weights and KV per token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ModelShape:
    """A GPT-2, or a BART of as many encoder as decoder `layers`. Inner width `4 * hidden`, head
    width `hidden / heads`, an output head that shares the embeddings."""

    family: Literal["gpt2", "bart"]
    layers: int
    heads: int
    hidden: int
    vocabulary: int
    context: int

    @property
    def words(self) -> str:
        layers = f"{self.layers} + {self.layers}" if self.encodes else f"{self.layers}"
        name = "BART" if self.encodes else "GPT-2"
        return f"{name} of {layers} layers, width {self.hidden}, vocabulary {self.vocabulary}"

    @property
    def encodes(self) -> bool:
        """Whether an encoder reads the prompt, and the decoder begins with a token of its own."""
        return self.family == "bart"

    @property
    def dense_parameters(self) -> int:
        """Weights that every token is multiplied with, the output head not counted.

        A layer has 4 square matrices of attention and 8 inside. In a BART a prompt token meets 2
        more, which make cross keys and values, and a decoder's token 2, cross attention's query
        and output: the same number on both sides.
        """
        return self.layers * (14 if self.encodes else 12) * self.hidden**2

    @property
    def head_parameters(self) -> int:
        return self.hidden * self.vocabulary

    @property
    def kv_values(self) -> int:
        """Numbers that one token leaves behind: in the decoder's KV, or in that of its prompt."""
        return self.layers * 2 * self.hidden


GPT2_SMALL = ModelShape("gpt2", layers=12, heads=12, hidden=768, vocabulary=50257, context=1024)
BART_BASE = ModelShape("bart", layers=6, heads=12, hidden=768, vocabulary=50265, context=1024)
TINY_GPT2 = ModelShape("gpt2", layers=2, heads=2, hidden=32, vocabulary=211, context=512)
TINY_BART = ModelShape("bart", layers=2, heads=2, hidden=32, vocabulary=211, context=512)
