"""A model's folder: whether `serve` would take it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prefixmux.cli.checks.finding import Finding
from prefixmux.cli.checks.machine import available_memory
from prefixmux.cli.human import size

SAFETENSORS = "Save it as transformers does: model.save_pretrained(FOLDER)."


def model(folder: Path, answer: Mapping[str, Any]) -> Iterator[Finding]:
    """`answer` is what `probe.look` found."""
    if not folder.is_dir():
        advice = "Give a folder to look into it; `serve` would ask the Hugging Face hub for it."
        yield Finding("model", "warn", f"{folder} is no folder here", advice)
        return
    yield _config(folder, answer["config"])
    yield from _weights(folder)
    if not (folder / "tokenizer.json").is_file():
        advice = "Save the fast tokenizer beside it; without, requests are token ids alone."
        yield Finding("tokenizer", "warn", "there is no tokenizer.json", advice)
    if "proof" in answer:
        yield _proof(answer["proof"])
    else:
        yield Finding("support", "warn", "not proven", "--prove loads it, as `serve` would.")


def _config(folder: Path, found: Mapping[str, Any]) -> Finding:
    if not (folder / "config.json").is_file():
        return Finding("model", "fail", f"{folder} has no config.json", SAFETENSORS)
    if "error" in found:
        advice = "Its config.json has to be of a model that this transformers knows."
        return Finding("model", "fail", found["error"], advice)
    return Finding("model", "ok", f"{found['architecture']} ({found['model_type']})")


def _weights(folder: Path) -> Iterator[Finding]:
    files = list(folder.glob("*.safetensors"))
    if not files:
        yield Finding("weights", "fail", "there are no safetensors files", SAFETENSORS)
        return
    needed, free = sum(path.stat().st_size for path in files), available_memory()
    shown = f"{size(needed)} in {len(files)} file" + ("" if len(files) == 1 else "s")
    if free is not None and needed > free:
        advice = "It has to be read through memory: free some, or take a smaller model."
        yield Finding("weights", "warn", f"{shown}, but {size(free)} of memory", advice)
    else:
        yield Finding("weights", "ok", shown)


def _proof(found: Mapping[str, Any]) -> Finding:
    if "error" in found:
        return Finding("support", "fail", found["error"], "Serve another model.")
    room = f"KV memory of {found['capacity_tokens']:,} tokens"
    shown = f"proven: {found['family']}, {found['device']}, {found['dtype']}, {room}"
    return Finding("support", "ok", shown)
