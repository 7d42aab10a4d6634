"""What a folder or file holds, and converting it: the way in for the command line.

Knows the kinds by the files that lie there; each kind's own module knows the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prefixmux_store.convert import adapterhub, li_liang
from prefixmux_store.convert.config_files import load_object
from prefixmux_store.convert.export import to_peft
from prefixmux_store.convert.model_config import read_shape
from prefixmux_store.convert.peft import from_peft
from prefixmux_store.convert.peft_shape import shape_of_adapter
from prefixmux_store.errors import InvalidRequest, UnsafeFormat
from prefixmux_store.format import PrefixFile, parse
from prefixmux_store.validate import ModelShape, check_model

Kind = Literal["peft", "li-liang", "adapterhub", "native"]
PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PEFT_PICKLE = "adapter_model.bin"


@dataclass(frozen=True)
class Converted:
    """`kind` is what the source was; `written` are the new files."""

    kind: Kind
    file: PrefixFile
    written: tuple[Path, ...]


def convert(
    source: Path,
    target: Path,
    kind: Kind | None = None,
    *,
    peft: bool = False,
    model: Path | None = None,
    task_index: int | None = None,
) -> Converted:
    """Reads `source` and writes a native file, or with `peft` a folder. `model` is the folder of
    the model that the prefix is for; some kinds cannot be read without. Overwrites nothing.

    Raises the store's errors, and `OSError`.
    """
    kind = kind or detect(source)
    shape = None if model is None else read_shape((model / "config.json").read_bytes())
    file = parse(_read(source, kind, shape, task_index))
    if shape is not None:
        check_model(file, shape)
    if not peft:
        return Converted(kind, file, _write({target: file.data}))
    made = to_peft(file, _needed(shape, "PEFT's files say its sizes"))
    target.mkdir(parents=True, exist_ok=True)
    contents = {
        target / PEFT_CONFIG: made.adapter_config,
        target / PEFT_WEIGHTS: made.adapter_model,
    }
    return Converted(kind, file, _write(contents))


def detect(source: Path) -> Kind:
    """Raises `InvalidRequest` for what is none of the kinds."""
    if source.is_file():
        return "native"
    config = source / PEFT_CONFIG
    if config.is_file():
        content = load_object(config.read_bytes(), PEFT_CONFIG)
        return "adapterhub" if adapterhub.is_adapterhub(content) else "peft"
    if (source / li_liang.WEIGHTS).is_file() and (source / li_liang.CONFIG).is_file():
        return "li-liang"
    raise InvalidRequest(
        f"There is no prefix: neither a file, nor a folder with {PEFT_CONFIG}"
        f" or with {li_liang.CONFIG} and {li_liang.WEIGHTS}.",
        param="source",
    )


def _read(source: Path, kind: Kind, shape: ModelShape | None, task_index: int | None) -> bytes:
    if kind == "peft":
        config, weights = source / PEFT_CONFIG, source / PEFT_WEIGHTS
        if (source / PEFT_PICKLE).is_file() and not weights.is_file():
            raise UnsafeFormat(f"{PEFT_PICKLE} is a pickle: save it again, as safetensors.")
        raw = config.read_bytes()
        return from_peft(raw, weights.read_bytes(), shape or shape_of_adapter(raw), task_index)
    if task_index is not None:
        raise InvalidRequest("Only PEFT's files hold several tasks.", param="task_index")
    if kind == "li-liang":
        return li_liang.from_li_liang(source)
    if kind == "adapterhub":
        return adapterhub.from_adapterhub(source, _needed(shape, "heads are not in its files"))
    return source.read_bytes()


def _needed(shape: ModelShape | None, reason: str) -> ModelShape:
    if shape is None:
        message = f"Name the folder of the model that the prefix is for: {reason}."
        raise InvalidRequest(message, param="model")
    return shape


def _write(contents: dict[Path, bytes]) -> tuple[Path, ...]:
    for path in contents:
        if path.exists():
            raise InvalidRequest(f"{path} exists already.", param="target")
    for path, data in contents.items():
        path.write_bytes(data)
    return tuple(contents)
