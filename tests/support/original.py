"""Golden checkpoints of the paper's own code, and what that code answered for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from support.slow import Asked, Piece

CHECKPOINTS = {
    "gpt2": (
        "gpt2-mlp-p5",
        "gpt2-mlp-p10",
        "gpt2-shallow-p6",
        "gpt2-shallow-word-p3",
        "gpt2-lowdata-p4",
        "gpt2-deep-p5",
        "gpt2-infix-p5",
        "gpt2-emb-mlp-p5",
        "gpt2-emb-direct-p5",
    ),
    "bart": ("bart-full-p7", "bart-deep-p5", "bart-self-p7"),
}
_METHODS = {"prefix": "PREFIX_TUNING", "bart": "PREFIX_TUNING", "infix": "INFIX_EMBEDDING"}


@dataclass(frozen=True)
class Original:
    """`root` is the folder of these files."""

    root: Path

    @cached_property
    def content(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.root / "golden.json").read_text())
        return dict(loaded["checkpoints"])

    @cached_property
    def logits(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = load_file(self.root / "logits.safetensors")
        return tensors

    def model(self, name: str) -> Path:
        return self.root / "models" / name

    def folder(self, checkpoint: str) -> Path:
        return self.root / "checkpoints" / checkpoint

    def cases(self, checkpoint: str, *, beams: bool = False) -> dict[str, Mapping[str, Any]]:
        """By name; greedy ones, or beam searches."""
        cases = self.content[checkpoint]["cases"]
        return {name: case for name, case in cases.items() if ("settings" in case) == beams}

    def piece(self, checkpoint: str) -> Piece:
        """From the expected tensors, not from the checkpoint."""
        kind = self.content[checkpoint]["kind"]
        # Embeddings behind an MLP are what PEFT calls P_TUNING.
        embedding = "P_TUNING" if "emb-mlp" in checkpoint else "PROMPT_TUNING"
        method = _METHODS.get(kind, embedding)
        folded = load_file(self.folder(checkpoint) / "folded.safetensors")
        tokens = self.content[checkpoint]["prefix_length"]
        embeddings = folded.pop("embeddings", folded.pop("infix_embeddings", None))
        if kind == "embedding":
            return Piece(method, embeddings=embeddings)
        # BART's decoder is not shifted by the paper's code, GPT-2 always is.
        offset = 0 if checkpoint in CHECKPOINTS["bart"] else tokens
        return Piece(method, folded, offset, embeddings)

    def asked(self, checkpoint: str, case: Mapping[str, Any]) -> Asked:
        ids = tuple(case["input_ids"])
        infix = "x" in case
        start = ids if infix else tuple(case.get("decoder_input_ids", ()))
        eos = 2 if checkpoint in CHECKPOINTS["bart"] else 159
        return Asked(
            input_ids=tuple(case["x"]) if infix else ids,
            decoder_ids=start,
            max_new_tokens=case["max_length"] - len(start or ids),
            pieces=(self.piece(checkpoint),),
            eos=(eos,),
        )
