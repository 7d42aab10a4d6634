"""Looks at torch, the device and a model in a process of its own, which prints what it finds.

A device's driver may crash or hang whoever asks it, and importing torch takes seconds: `look` asks
from outside. Run as a module with the question as its one argument.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

# Before each line that is ours: libraries print, too.
MARK = "prefixmux-probe "
PROBE_SECONDS = 120
PROOF_SECONDS = 1800


@dataclass(frozen=True)
class Question:
    """`model` is a folder or None; `prove` loads that as `serve` would."""

    model: str | None
    device: str
    dtype: str
    prove: bool


def look(question: Question) -> dict[str, Any]:
    """Under `device`, `config` and `proof`, as far as they were asked for; what went wrong with
    one stands under its `error`."""
    command = [sys.executable, "-m", __name__, json.dumps(asdict(question))]
    limit = PROOF_SECONDS if question.prove else PROBE_SECONDS
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
        said, end = done.stdout, f"it ended with status {done.returncode}"
    except subprocess.TimeoutExpired as late:
        said, end = _text(late.stdout), f"it gave no answer in {limit} s"
    lines = (line.removeprefix(MARK) for line in said.splitlines() if line.startswith(MARK))
    found: dict[str, Any] = {}
    for line in lines:
        found |= json.loads(line)
    return {part: {"error": end} for part in _parts(question)} | found


def _text(said: bytes | str | None) -> str:
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else said or ""


def _parts(question: Question) -> list[str]:
    model = [] if question.model is None else ["config"]
    return ["device", *model, *(["proof"] if question.prove else [])]


def _answers(question: Question) -> Iterator[dict[str, object]]:
    try:
        torch = import_module("torch")
    except (ImportError, OSError) as error:
        failure = {"error": f"torch cannot be imported ({error})"}
        yield dict.fromkeys(_parts(question), failure)
        return
    yield {"device": _device(torch)}
    if question.model is not None:
        yield {"config": _config(question.model)}
    if question.prove:
        yield {"proof": _proof(question)}


def _device(torch: Any) -> dict[str, object]:  # noqa: ANN401
    if not torch.cuda.is_available():
        return {"type": "cpu", "threads": torch.get_num_threads()}
    free, total = torch.cuda.mem_get_info()
    return {
        "type": "cuda",
        "name": torch.cuda.get_device_name(),
        "bfloat16": torch.cuda.is_bf16_supported(),
        "free": free,
        "total": total,
    }


def _config(folder: str) -> dict[str, object]:
    transformers = import_module("transformers")
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # noqa: BLE001 - any, as transformers raises any
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    names = getattr(config, "architectures", None) or [None]
    return {"model_type": config.model_type, "architecture": names[0]}


def _proof(question: Question) -> dict[str, object]:
    """As the engine's process does it, in a store that is thrown away."""
    settings = import_module("prefixmux_server.settings")
    build = import_module("prefixmux_server.engine.build")
    errors = import_module("prefixmux_server.engine.errors")
    with tempfile.TemporaryDirectory() as store:
        flags = {"model": question.model, "device": question.device, "dtype": question.dtype}
        engine = settings.resolve({**flags, "store": store}).engine
        try:
            _, ready = build.start_engine(engine, lambda: None)
        except errors.EngineStartError as error:
            return {"error": error.message}
    model = ready.model
    return {
        "family": model.family,
        "device": model.device,
        "dtype": model.dtype,
        "methods": list(model.methods),
        "capacity_tokens": model.capacity_tokens,
    }


if __name__ == "__main__":
    for part in _answers(Question(**json.loads(sys.argv[1]))):
        sys.stdout.write(f"\n{MARK}{json.dumps(part)}\n")
        sys.stdout.flush()
