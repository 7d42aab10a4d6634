"""Measures every bundled prefix beside the bare model on held-out examples; writes RESULTS.md.

    python -m demo.evaluate --data DATA

Held out: sources of the test split that the train split does not have, drawn with a fixed seed,
one row for each distinct source.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from random import Random

import torch
from peft import PeftModel
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

from demo.batches import answer_loss, collate, encode, task_pairs
from demo.data import Pair
from demo.greedy import answers
from demo.report import Result, write_report
from demo.tasks import TASKS, Task

SEED = 5
ROWS = 25


@dataclass(frozen=True)
class HeldOut:
    """Examples of one task; `accepted` are all the outputs that the test split has for a source."""

    pairs: Sequence[Pair]
    accepted: Mapping[str, Sequence[str]]


def held_out(data: Path, task: Task, count: int) -> HeldOut:
    """`count` test examples (or all) whose sources are distinct and not trained on."""
    trained = {pair.source for pair in task_pairs(data, task, "train")}
    accepted: dict[str, list[str]] = {}
    for pair in task_pairs(data, task, "test"):
        if pair.source not in trained:
            accepted.setdefault(pair.source, []).append(pair.target)
    sources = sorted(accepted)
    Random(SEED).shuffle(sources)
    pairs = [Pair(source, accepted[source][0]) for source in sources[:count]]
    return HeldOut(pairs, accepted)


def load_prefix(base: LlamaForCausalLM, folder: Path) -> PeftModel:
    """The model behind a bundled prefix, as PEFT reads it."""
    return PeftModel.from_pretrained(base, folder).eval()


def loss_per_token(
    model: LlamaForCausalLM | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    pairs: Sequence[Pair],
) -> float:
    """Mean cross-entropy (nats) of the answers' tokens, EOS included."""
    behind = isinstance(model, PeftModel)
    base = model.get_base_model() if behind else model
    examples = encode(task, pairs, tokenizer)
    total, tokens = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(examples), ROWS):
            prefix = model.get_prompt(batch_size=1) if behind else None
            loss, count = answer_loss(base, collate(examples[start : start + ROWS]), prefix)
            total, tokens = total + loss.item(), tokens + count
    return total / tokens


def exact(texts: Iterable[str], examples: HeldOut) -> float:
    """Share of answers that are one of the accepted outputs, but for outer white space."""
    hits = [
        text.strip() in {other.strip() for other in examples.accepted[pair.source]}
        for text, pair in zip(texts, examples.pairs, strict=True)
    ]
    return sum(hits) / len(hits)


def word_f1(texts: Iterable[str], examples: HeldOut) -> float:
    """Mean over answers of the best F1 of its words (as a bag) with an accepted output's."""
    scores = [
        _closeness(text, pair, examples) for text, pair in zip(texts, examples.pairs, strict=True)
    ]
    return sum(scores) / len(scores)


def best_first(texts: Sequence[str], examples: HeldOut, count: int) -> list[Pair]:
    """The first `count` held-out pairs, those with the closest answers first."""
    judged = list(zip(texts, examples.pairs, strict=True))[:count]
    judged.sort(key=lambda each: _closeness(each[0], each[1], examples), reverse=True)
    return [pair for _, pair in judged]


def _closeness(text: str, pair: Pair, examples: HeldOut) -> float:
    return max(_f1(text.split(), other.split()) for other in examples.accepted[pair.source])


def _f1(got: list[str], wanted: list[str]) -> float:
    shared = sum((Counter(got) & Counter(wanted)).values())
    return 2 * shared / (len(got) + len(wanted))


def evaluate(task: Task, arguments: argparse.Namespace) -> tuple[Result, list[Pair]]:
    """Both models on the same examples, and the pairs to embed."""
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    base = LlamaForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    examples = held_out(arguments.data, task, arguments.count)
    prompts = [task.prompt(pair.source) for pair in examples.pairs]
    bare_loss = loss_per_token(base, tokenizer, task, examples.pairs)
    bare_texts = answers(base, tokenizer, prompts)
    folder = arguments.prefixes / task.task_id
    peft = load_prefix(base, folder)
    texts = answers(peft, tokenizer, prompts)
    for prompt, text, pair in zip(prompts[:5], texts, examples.pairs, strict=False):
        print(f"{prompt}\n   got    {text}\n   wanted {pair.target}", flush=True)
    result = Result(
        task=task,
        examples=len(prompts),
        bare_loss=bare_loss,
        loss=loss_per_token(peft, tokenizer, task, examples.pairs),
        bare_exact=exact(bare_texts, examples),
        exact=exact(texts, examples),
        bare_words=word_f1(bare_texts, examples),
        words=word_f1(texts, examples),
        parameters=peft.prompt_encoder["default"].embedding.weight.numel(),
        file_bytes=(folder / "adapter_model.safetensors").stat().st_size,
        model_parameters=base.num_parameters(),
    )
    return result, best_first(texts, examples, arguments.embed)


def write_examples(picked: Mapping[str, Sequence[Pair]], out: Path) -> None:
    """A few held-out examples of every task, for the tests and `demo.run`."""
    rows = {
        task_id: [{"source": pair.source, "target": pair.target} for pair in pairs]
        for task_id, pairs in picked.items()
    }
    out.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with pairs/")
    parser.add_argument("--model", type=Path, default=Path("demo/model"))
    parser.add_argument("--prefixes", type=Path, default=Path("demo/prefixes"))
    parser.add_argument("--out", type=Path, default=Path("demo/RESULTS.md"))
    parser.add_argument("--count", type=int, default=100, help="held-out examples per task")
    parser.add_argument("--embed", type=int, default=8, help="examples kept in examples.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    done = {task.task_id: evaluate(task, arguments) for task in TASKS}
    write_report([result for result, _ in done.values()], arguments.out, date.today())
    examples = {task_id: pairs for task_id, (_, pairs) in done.items()}
    write_examples(examples, arguments.out.with_name("examples.json"))


if __name__ == "__main__":
    main()
