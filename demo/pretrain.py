"""Trains the demo's language model from nothing, and its tokenizer.

    python -m demo.pretrain --data DATA --out demo/model --minutes 40

One CPU thread. The length of the run is given in minutes, not steps, because the schedule must
end where the time does: the same seed gives the same texts, but not the same weights.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from demo.pretext import documents
from demo.tokenizer import train_tokenizer

VOCABULARY = 2048
CONTEXT = 512
BLOCK = 128
ROWS = 16
TOKENIZER_DOCUMENTS = 60_000
PEAK_LEARNING_RATE = 2.5e-3
WARM_UP_STEPS = 150
SEED = 7


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A random Llama of 3 million parameters."""
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def begin(data: Path, start: Path | None) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A random model with a new tokenizer, or both as they lie in `start`."""
    if start is not None:
        model = LlamaForCausalLM.from_pretrained(start, dtype=torch.float32)
        return model, AutoTokenizer.from_pretrained(start)
    sample = islice(documents(data, SEED), TOKENIZER_DOCUMENTS)
    tokenizer = train_tokenizer(sample, VOCABULARY, CONTEXT)
    return build_model(tokenizer), tokenizer


def blocks(tokenizer: PreTrainedTokenizerFast, texts: Iterator[str]) -> Iterator[torch.Tensor]:
    """Batches `[ROWS, BLOCK]` of token ids: documents end to end, each closed by EOS."""
    held: list[int] = []
    while True:
        while len(held) < ROWS * BLOCK:
            for ids in tokenizer(list(islice(texts, 64)))["input_ids"]:
                held += [*ids, tokenizer.eos_token_id]
        yield torch.tensor(held[: ROWS * BLOCK]).view(ROWS, BLOCK)
        held = held[ROWS * BLOCK :]


def optimizer_for(model: torch.nn.Module) -> torch.optim.Optimizer:
    """AdamW; weight decay on matrices only."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=PEAK_LEARNING_RATE, betas=(0.9, 0.95), fused=True)


def learning_rate(step: int, progress: float) -> float:
    """Linear warm-up by step, then a cosine to a twentieth by the share of time used."""
    cosine = 0.05 + 0.95 * (1 + math.cos(math.pi * progress)) / 2
    return PEAK_LEARNING_RATE * min(1.0, (step + 1) / WARM_UP_STEPS) * cosine


def train(model: LlamaForCausalLM, batches: Iterator[torch.Tensor], seconds: float) -> None:
    """Trains until `seconds` are used. Products in bfloat16, weights and updates in float32."""
    optimizer = optimizer_for(model)
    start = time.monotonic()
    mean = math.log(VOCABULARY)
    for step, batch in enumerate(batches):
        used = time.monotonic() - start
        if used >= seconds:
            return
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, used / seconds)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        mean += (loss.item() - mean) * 0.02
        if step % 100 == 0:
            rate = (step + 1) * ROWS * BLOCK / (time.monotonic() - start)
            print(f"{used:6.0f} s  step {step}  loss {mean:.3f}  {rate:.0f} tokens/s", flush=True)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Writes the folder that `from_pretrained` reads; weights as float16, half the size."""
    tokenizer.save_pretrained(out)
    model.set_attn_implementation("sdpa")
    model.to(torch.float16).save_pretrained(out)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with pairs/ and text/")
    parser.add_argument("--out", type=Path, default=Path("demo/model"))
    parser.add_argument("--start", type=Path, help="go on from this model and its tokenizer")
    parser.add_argument("--seed", type=int, default=SEED, help="of the texts")
    parser.add_argument("--minutes", type=float, default=40.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = begin(arguments.data, arguments.start)
    # The plain attention's backward pass is half again as fast here as the fused one's.
    model.set_attn_implementation("eager")
    batches = blocks(tokenizer, documents(arguments.data, arguments.seed + 1))
    train(model, batches, arguments.minutes * 60)
    save(model, tokenizer, arguments.out)


if __name__ == "__main__":
    main()
