"""Turns pairs into token batches in which only the answer counts, and scores a model on them.

The loss is that of a frozen model behind a prefix (or none); who trains what is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from transformers import Cache, LlamaForCausalLM, PreTrainedTokenizerBase

from demo.data import Pair, read_pairs
from demo.tasks import Task

IGNORED = -100
BATCHES_PER_BUCKET = 40


@dataclass(frozen=True)
class Example:
    """Prompt, answer and EOS as one list of ids; the first `prompt` of them are the prompt's."""

    ids: tuple[int, ...]
    prompt: int


@dataclass(frozen=True)
class Batch:
    """`ids` `[rows, tokens]`, padded on the right, and `labels`: the answer's ids, else IGNORED."""

    ids: torch.Tensor
    labels: torch.Tensor


def task_pairs(data: Path, task: Task, split: str) -> list[Pair]:
    """A split of the task's data, each pair in the task's direction."""
    pairs = read_pairs(data, task.pairs, split)
    return [Pair(pair.target, pair.source) for pair in pairs] if task.reverse else pairs


def encode(task: Task, pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    """The pairs as the server will see them: `tokenizer(prompt)`, then the answer and EOS."""
    prompts = tokenizer([task.prompt(pair.source) for pair in pairs])["input_ids"]
    answers = tokenizer([task.answer(pair.target) for pair in pairs])["input_ids"]
    return [
        Example((*prompt, *answer, tokenizer.eos_token_id), len(prompt))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


def collate(examples: Sequence[Example]) -> Batch:
    """One batch. Id 0 pads: no real token sees what comes after it."""
    width = max(len(example.ids) for example in examples)
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    for row, example in enumerate(examples):
        line = torch.tensor(example.ids)
        ids[row, : len(line)] = line
        labels[row, example.prompt : len(line)] = line[example.prompt :]
    return Batch(ids, labels)


def shuffled(examples: Sequence[Example], rows: int, random: Random) -> Iterator[Batch]:
    """Batches without end; rows of a batch have about the same length, so little is padding."""
    while True:
        pool = random.sample(examples, min(len(examples), rows * BATCHES_PER_BUCKET))
        pool.sort(key=lambda example: len(example.ids))
        starts = list(range(0, len(pool), rows))
        random.shuffle(starts)
        for start in starts:
            yield collate(pool[start : start + rows])


def answer_loss(
    model: LlamaForCausalLM, batch: Batch, prefix: Cache | None
) -> tuple[torch.Tensor, int]:
    """Summed cross-entropy of the answers' tokens (EOS included) and how many they are.

    `prefix` holds the keys and values of ONE row; it is used up.
    """
    if prefix is not None:
        prefix.batch_repeat_interleave(len(batch.ids))
    hidden = model.model(input_ids=batch.ids, past_key_values=prefix, use_cache=prefix is not None)
    wanted = batch.labels[:, 1:]
    counted = wanted != IGNORED
    logits = model.lm_head(hidden.last_hidden_state[:, :-1][counted])
    loss = torch.nn.functional.cross_entropy(logits.float(), wanted[counted], reduction="sum")
    return loss, int(counted.sum())
