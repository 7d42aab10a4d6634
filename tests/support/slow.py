"""The slow reference: what one request answers, alone, every step a forward of all its tokens.

It reads prefixes as plain tensors and runs the model's own code with an attention of its own;
the rules are written down here a second time, so that the server's can be held against them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from support.slow_attention import Extra
from support.slow_model import SlowModel
from support.slow_rows import CausalRow, Row, Seq2SeqRow, Sight

CLOSE = 1e-4
"""Two best logits that are nearer than this may swap places by rounding alone."""

INFIXES = ("INFIX_TUNING", "INFIX_EMBEDDING")


@dataclass(frozen=True, eq=False)
class Piece:
    """One stored prefix: `sites` `[L, 2, P, H_kv, D]` each, `embeddings` `[P, width]`, or ids of
    a text. `offset` is the decoder's: by how much the tokens after it are shifted."""

    method: str
    sites: Mapping[str, Tensor] = field(default_factory=dict)
    offset: int = 0
    embeddings: Tensor | None = None
    token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Asked:
    """One greedy request. `decoder_ids` are the decoder's start, or what follows an infix."""

    input_ids: tuple[int, ...]
    max_new_tokens: int
    pieces: tuple[Piece, ...] = ()
    decoder_ids: tuple[int, ...] = ()
    eos: tuple[int, ...] = ()
    forced_bos: int | None = None
    forced_eos: int | None = None


@dataclass(frozen=True)
class Said:
    """Tokens, the raw logits each was chosen from, and how many come before a close call."""

    tokens: tuple[int, ...]
    logits: Tensor
    sure: int


class Slow:
    """Answers requests of one model."""

    def __init__(self, folder: Path) -> None:
        self.model = SlowModel(folder)

    def greedy(self, asked: Asked) -> Said:
        return _generate(asked, self.row(asked))

    def row(self, asked: Asked) -> Row:
        """The request's row, to be asked for logits after any output."""
        return self._seq2seq(asked) if self.model.seq2seq else self._causal(asked)

    def compile(self, piece: Piece) -> Tensor:
        """The KV that a decoder-only prefix of embeddings or text leaves at 0 .. P - 1."""
        tokens = piece.token_ids if piece.embeddings is None else piece.embeddings
        return self.model.run(tokens, torch.arange(len(tokens)), {})[1]

    def infix_kv(self, piece: Piece, input_ids: Sequence[int], before: Sequence[Piece]) -> Tensor:
        """The paper's code: embeddings run after x, then the stored KV is added to theirs."""
        assert piece.embeddings is not None
        row = self._prefixed(before)
        tokens = torch.cat([self.model.embed(input_ids), piece.embeddings])
        _, own = self.model.run(tokens, row.positions(len(tokens)), row.extras)
        return own[:, :, len(input_ids) :] + piece.sites["decoder"]

    def infix_logits(
        self, embeddings: Tensor, input_ids: Sequence[int], before: Sequence[Piece]
    ) -> Tensor:
        """`[vocabulary]`, of what comes after virtual tokens that run behind x."""
        row = self._prefixed(before)
        tokens = torch.cat([self.model.embed(input_ids), embeddings])
        return self.model.run(tokens, row.positions(len(tokens)), row.extras)[0][-1]

    def prepended(self, embeddings: Tensor, ids: Sequence[int]) -> Tensor:
        """Decoder-only logits `[n, vocabulary]` of ids behind virtual tokens that are run."""
        tokens = torch.cat([embeddings, self.model.embed(ids)])
        return self.model.run(tokens, torch.arange(len(tokens)), {})[0][len(embeddings) :]

    def _causal(self, asked: Asked) -> CausalRow:
        infixes = [piece for piece in asked.pieces if piece.method in INFIXES]
        prefixes = [piece for piece in asked.pieces if piece.method not in INFIXES]
        row, at = self._prefixed(prefixes), len(asked.input_ids)
        jump = 0
        for piece in infixes:
            kv = piece.sites["decoder"]
            if piece.method == "INFIX_EMBEDDING":
                kv = self.infix_kv(piece, asked.input_ids, prefixes)
            row.add("decoder", Extra(kv, at, row.shift + at + jump if piece.offset else None))
            jump += piece.offset
        return CausalRow(row, (*asked.input_ids, *asked.decoder_ids), at, jump)

    def _prefixed(self, pieces: Sequence[Piece]) -> Sight:
        row = Sight(self.model)
        for piece in pieces:
            if piece.sites:
                row.prefix(piece.sites["decoder"], piece.offset)
            else:
                kv = self.compile(piece)
                row.prefix(kv, kv.shape[2])
        return row

    def _seq2seq(self, asked: Asked) -> Seq2SeqRow:
        row = Sight(self.model)
        for piece in asked.pieces:
            for site in ("encoder", "cross"):
                if site in piece.sites:
                    row.add(site, Extra(piece.sites[site]))
            if "decoder" in piece.sites:
                row.prefix(piece.sites["decoder"], piece.offset)
        states = self.model.encode(self._encoder_tokens(asked), row.extras)
        return Seq2SeqRow(row, asked.decoder_ids, states)

    def _encoder_tokens(self, asked: Asked) -> tuple[int, ...] | Tensor:
        """Beside virtual tokens all real ones enter as embeddings, as PEFT passes them."""
        if all(piece.embeddings is None for piece in asked.pieces):
            texts = [token for piece in asked.pieces for token in piece.token_ids]
            return (*texts, *asked.input_ids)
        parts = [
            self.model.embed(piece.token_ids) if piece.embeddings is None else piece.embeddings
            for piece in asked.pieces
        ]
        return torch.cat([*parts, self.model.embed(asked.input_ids)])


def _generate(asked: Asked, row: Row) -> Said:
    output: list[int] = []
    seen: list[Tensor] = []
    sure = asked.max_new_tokens
    while len(output) < asked.max_new_tokens:
        seen.append(row.logits(output))
        best, ids = seen[-1].topk(2)
        forced = _forced(asked, len(output))
        if forced is None and float(best[0] - best[1]) < CLOSE:
            sure = min(sure, len(output))
        output.append(int(ids[0]) if forced is None else forced)
        if output[-1] in asked.eos:
            break
    return Said(tuple(output), torch.stack(seen), min(sure, len(output)))


def _forced(asked: Asked, step: int) -> int | None:
    """As transformers: the first token after a single start token, and the last allowed one."""
    if step == 0 and len(asked.decoder_ids) == 1 and asked.forced_bos is not None:
        return asked.forced_bos
    return asked.forced_eos if step == asked.max_new_tokens - 1 else None
