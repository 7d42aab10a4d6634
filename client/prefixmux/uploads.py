"""From a path on this machine to the parts of an upload.

Knows the two forms that the server reads (a native file, PEFT's two files) and refuses pickled
weights here: no server unpickles a client's file. Contents are the server's to judge.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prefixmux.errors import InvalidArgumentError

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_MODEL = "adapter_model.safetensors"
PICKLED = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})

RESAVE = (
    "is pickled, and unpickling runs code, so no server reads it. Save it again as safetensors"
    " where you trust it: PeftModel.from_pretrained(model, folder).save_pretrained(folder)"
)
CONVERT = "checkpoints of other programs are converted first: prefixmux convert FOLDER NEW_FILE"


@dataclass(frozen=True)
class UploadParts:
    """Form fields and files (by part name) of one upload."""

    files: Mapping[str, Path]
    form: Mapping[str, str] = field(default_factory=dict)


def parts_of(path: Path) -> UploadParts:
    """Raises InvalidArgumentError for what cannot be uploaded, OSError for what cannot be read."""
    return _peft_folder(path) if path.is_dir() else _native_file(path)


def _peft_folder(folder: Path) -> UploadParts:
    config, model = folder / ADAPTER_CONFIG, folder / ADAPTER_MODEL
    if not config.is_file():
        raise InvalidArgumentError(
            f"{folder} has no {ADAPTER_CONFIG}: not a PEFT adapter; {CONVERT}."
        )
    if model.is_file():
        return UploadParts({"adapter_config": config, "adapter_model": model})
    pickled = folder / "adapter_model.bin"
    if pickled.is_file():
        raise InvalidArgumentError(f"{pickled} {RESAVE}.")
    raise InvalidArgumentError(f"{folder} has no {ADAPTER_MODEL}; {CONVERT}.")


def _native_file(path: Path) -> UploadParts:
    if path.suffix.lower() in PICKLED:
        raise InvalidArgumentError(f"{path} {RESAVE}; {CONVERT}.")
    if path.name == ADAPTER_MODEL and (path.parent / ADAPTER_CONFIG).is_file():
        raise InvalidArgumentError(
            f"{path} is half of a PEFT adapter: give its folder, {path.parent}."
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return UploadParts({"file": path}, {"sha256": f"sha256:{digest}"})
