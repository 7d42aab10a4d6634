"""How a request's tokens are chosen: sampling and beam search. Imports no torch.

Ranges are those of the HTTP contract and were checked before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EarlyStopping = Literal["yes", "no", "never"]


@dataclass(frozen=True)
class BeamParams:
    """Beam search as transformers does it (`early_stopping` True, False, "never"), or, where the
    length counts the prompt too, as the code of Li & Liang (2021) did.

    The `num_return` best sequences are answered, the best first.
    """

    num_beams: int
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = "no"
    num_return: int = 1
    length_includes_prompt: bool = False


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen, for each of `n` outputs. `logprobs` and `prompt_logprobs` say
    how many of the most likely tokens are told beside each one (None: nothing is told);
    `max_new_tokens` 0 asks for the prompt's alone. `forced_bos_token_id` is the first token of a
    decoder that began with one start token, `forced_eos_token_id` the last allowed one (as
    transformers)."""

    max_new_tokens: int
    min_new_tokens: int = 0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int = 0
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    no_repeat_ngram_size: int = 0
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | None = None
    beams: BeamParams | None = None
    n: int = 1
    logprobs: int | None = None
    prompt_logprobs: int | None = None

    @property
    def rows(self) -> int:
        """Rows of the batch that a request takes: one for each output, or for each beam."""
        return self.n if self.beams is None else self.beams.num_beams
