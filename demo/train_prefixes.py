"""Trains the bundled prefixes, each on the frozen demo model, and writes PEFT adapters.

    python -m demo.train_prefixes --data DATA [--task e2e ...]

PEFT's own prefix encoder with its reparameterising MLP; PEFT folds the MLP away when it saves.
One CPU thread; like the model's, a run's length is given in minutes.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import torch
from peft import PeftModel, PrefixTuningConfig, get_peft_model
from transformers import AutoTokenizer, LlamaForCausalLM

from demo.batches import Batch, answer_loss, encode, shuffled, task_pairs
from demo.tasks import TASKS, Task, task

ROWS = 16
LONGEST = 200
HIDDEN = 384
PEAK_LEARNING_RATE = 3e-3
WARM_UP_STEPS = 50
SEED = 11


def attach_prefix(model: LlamaForCausalLM, tokens: int) -> PeftModel:
    """The model, frozen, behind a new trainable prefix of `tokens` virtual tokens."""
    torch.manual_seed(SEED)
    config = PrefixTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=tokens,
        prefix_projection=True,
        encoder_hidden_size=HIDDEN,
    )
    return get_peft_model(model, config)


def learning_rate(peak: float, step: int, progress: float) -> float:
    """Linear warm-up by step, then a cosine to zero by the share of time used."""
    cosine = (1 + math.cos(math.pi * progress)) / 2
    return peak * min(1.0, (step + 1) / WARM_UP_STEPS) * cosine


def train(peft: PeftModel, batches: Iterator[Batch], seconds: float, peak: float) -> None:
    """Trains the prefix until `seconds` are used, and prints the mean loss per answer token."""
    model = peft.get_base_model()
    trainable = [each for each in peft.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=peak, weight_decay=0.0, fused=True)
    start = time.monotonic()
    mean = 0.0
    for step, batch in enumerate(batches):
        used = time.monotonic() - start
        if used >= seconds:
            return
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(peak, step, used / seconds)
        with torch.autocast("cpu", torch.bfloat16):
            total, count = answer_loss(model, batch, peft.get_prompt(batch_size=1))
        loss = total / count
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        mean += (loss.item() - mean) * max(0.02, 1 / (step + 1))
        if step % 50 == 0:
            print(f"{used:6.0f} s  step {step}  loss {mean:.3f}", flush=True)


def save(peft: PeftModel, out: Path) -> None:
    """Writes the adapter's two files; the base is named as it lies in this repository."""
    peft.peft_config["default"].base_model_name_or_path = "demo/model"
    peft.save_pretrained(out)
    (out / "README.md").unlink(missing_ok=True)


def train_task(wanted: Task, arguments: argparse.Namespace) -> None:
    """Trains and saves one task's prefix."""
    print(f"{wanted.task_id}: {wanted.prefix_tokens} tokens", flush=True)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    # On a CPU the plain attention's backward pass is twice as fast as the fused one's here.
    model = LlamaForCausalLM.from_pretrained(
        arguments.model, dtype=torch.float32, attn_implementation="eager"
    )
    pairs = task_pairs(arguments.data, wanted, "train")
    examples = [each for each in encode(wanted, pairs, tokenizer) if len(each.ids) <= LONGEST]
    peft = attach_prefix(model, wanted.prefix_tokens)
    train(peft, shuffled(examples, ROWS, Random(SEED)), arguments.minutes * 60, arguments.rate)
    save(peft, arguments.out / wanted.task_id)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with pairs/")
    parser.add_argument("--model", type=Path, default=Path("demo/model"))
    parser.add_argument("--out", type=Path, default=Path("demo/prefixes"))
    parser.add_argument("--minutes", type=float, default=4.0, help="per task")
    parser.add_argument("--rate", type=float, default=PEAK_LEARNING_RATE)
    parser.add_argument("--task", action="append", choices=[each.task_id for each in TASKS])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [task(name) for name in arguments.task] if arguments.task else list(TASKS)
    for each in chosen:
        train_task(each, arguments)


if __name__ == "__main__":
    main()
