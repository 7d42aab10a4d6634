"""Checkpoints of the paper's own code: every kind and container, and what is refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from prefixmux_store.convert.li_liang import from_li_liang
from prefixmux_store.errors import StoreError
from prefixmux_store.format import PrefixFile, parse

LAYERS, HEADS, HIDDEN, MIDDLE, TOKENS = 2, 2, 8, 6, 3
WIDE = 2 * LAYERS * HIDDEN


def config(model: str = "gpt2", **changes: object) -> dict[str, object]:
    sizes: dict[str, object] = {"n_layer": LAYERS, "n_head": HEADS, "n_embd": HIDDEN}
    if model == "bart":
        sizes = {
            "decoder_layers": LAYERS,
            "decoder_attention_heads": HEADS,
            "d_model": HIDDEN,
        }
    about = {
        "architectures": ["PrefixTuning"],
        "model_type": model,
        "optim_prefix": True,
        "preseqlen": 99,
        "train_weights": "no",
        "_my_arg_tune_mode": "prefixtune",
        "_my_arg_task_mode": "webnlg",
    }
    return {key: value for key, value in {**about, **sizes, **changes}.items() if value is not ...}


def values(*sizes: int) -> torch.Tensor:
    made = np.random.default_rng(sum(sizes)).standard_normal(sizes).astype("<f4")
    return torch.from_numpy(made)


def mlp(
    suffix: str = "", out: int = WIDE, middle: tuple[int, ...] = (MIDDLE,)
) -> dict[str, object]:
    """wte and control_trans of one site."""
    made: dict[str, object] = {f"wte{suffix}.weight": values(TOKENS, HIDDEN)}
    widths = (HIDDEN, *middle, out)
    for place, (given, taken) in enumerate(pairwise(widths)):
        made[f"control_trans{suffix}.{2 * place}.weight"] = values(taken, given)
        made[f"control_trans{suffix}.{2 * place}.bias"] = values(taken)
    return made


def saved(folder: Path, about: Mapping[str, object], tensors: object) -> Path:
    (folder / "config.json").write_text(json.dumps(about))
    torch.save(tensors, folder / "pytorch_model.bin")
    return folder


def in_torch(tensors: Mapping[str, object], suffix: str = "") -> torch.Tensor:
    """As the original module computes it, in single precision."""
    state = {name: value for name, value in tensors.items() if isinstance(value, torch.Tensor)}
    result, place = state[f"wte{suffix}.weight"], 0
    while f"control_trans{suffix}.{place}.weight" in state:
        layer = f"control_trans{suffix}.{place}"
        result = torch.tanh(result) if place else result
        result = result @ state[f"{layer}.weight"].T + state[f"{layer}.bias"]
        place += 2
    return result


def test_what_an_mlp_makes_is_laid_out_by_layer(tmp_path: Path) -> None:
    tensors = mlp()
    found = parse(from_li_liang(saved(tmp_path, config(), tensors)))
    flat = in_torch(tensors).reshape(TOKENS, 2 * LAYERS, HEADS, HIDDEN // HEADS).numpy()
    decoder = found.tensors["decoder"].floats()
    for layer in range(LAYERS):
        for part in (0, 1):
            expected = flat[:, 2 * layer + part]
            np.testing.assert_allclose(decoder[layer, part], expected, atol=1e-5)
    assert (found.meta.method, found.offset("decoder")) == ("PREFIX_TUNING", TOKENS)
    assert found.meta.provenance == {"source": "li-liang", "task": "webnlg"}


def test_bart_has_three_sites_and_shifts_no_position(tmp_path: Path) -> None:
    tensors = mlp() | mlp("_enc") | mlp("2")
    found = parse(from_li_liang(saved(tmp_path, config("bart"), tensors)))
    assert found.sites == {"cross": TOKENS, "decoder": TOKENS, "encoder": TOKENS}
    assert [found.offset(site) for site in found.sites] == [0, 0, 0]
    for site, suffix in {"decoder": "", "encoder": "_enc", "cross": "2"}.items():
        flat = in_torch(tensors, suffix).reshape(TOKENS, LAYERS, 2, HEADS, HIDDEN // HEADS)
        expected = flat.permute(1, 2, 0, 3, 4).numpy()
        np.testing.assert_allclose(found.tensors[site].floats(), expected, atol=1e-5)


def test_half_precision_is_widened(tmp_path: Path) -> None:
    tensors = {name: value.half() for name, value in mlp().items() if torch.is_tensor(value)}
    assert parse(from_li_liang(saved(tmp_path, config(), tensors))).sites == {"decoder": TOKENS}


@dataclass(frozen=True)
class Misfit:
    name: str
    about: Mapping[str, object]
    tensors: object
    code: str
    said: str
    subfolder: str | None = None


def misfits() -> Iterator[Misfit]:
    good, fine = config(), mlp()
    unsupported, invalid = "unsupported_method", "invalid_prefix"
    off = {key: value for key, value in fine.items() if not key.startswith("wte")}
    yield Misfit("x-dependent", config(optim_prefix=False), off, unsupported, "optim_prefix is off")
    yield Misfit("x-dependent, untold", config(optim_prefix=...), off, unsupported, "no wte")
    both = config(_my_arg_tune_mode="bothtune")
    yield Misfit("bothtune", both, fine, unsupported, "bothtune")
    yield Misfit("bothtune folder", good, fine, unsupported, "itself was trained", "gpt2")
    for mode in ("finetune", "finetune-top", "adaptertune"):
        about = config(_my_arg_tune_mode=mode)
        yield Misfit(mode, about, fine, unsupported, mode)
    for value in ("yes", True):
        about = config(train_weights=value)
        yield Misfit(f"weights {value}", about, fine, unsupported, "itself was trained")
    whole = {"transformer.h.0.attn.c_attn.weight": values(8, 24)}
    yield Misfit("a whole model", good, whole, unsupported, "whole language model")
    about = config(architectures=["GPT2LMHeadModel"])
    yield Misfit("a model's config", about, fine, unsupported, "GPT2LMHeadModel")
    yield Misfit("no architecture", config(architectures=...), fine, unsupported, "not of a prefix")
    yield Misfit("t5", config(model_type="t5"), fine, unsupported, "not for t5")
    about = config("bart", architectures=["PrefixEmbTuning"])
    yield Misfit("BART embeddings", about, mlp(out=HIDDEN), unsupported, "embeddings alone")
    infix = mlp() | {"wte2.weight": values(TOKENS, HIDDEN)}
    yield Misfit("BART infix", config("bart", use_infix=True), infix, unsupported, "infix for BART")
    yield Misfit("infix without", config(use_infix=True), fine, unsupported, "no wte2")
    yield Misfit("cross without an MLP", config("bart"), infix, invalid, "control_trans2.0")
    yield Misfit("unknown tensor", good, fine | {"x": values(2)}, invalid, "holds x")
    yield Misfit("nothing for BART", config("bart"), {"wte3": values(2)}, invalid, "holds wte3")
    yield Misfit("nothing at all", config("bart"), {}, invalid, "nothing")
    yield Misfit("other width", config(n_embd=6), fine, invalid, "24 values per token; the")
    yield Misfit("indivisible", config(n_embd=9), fine, invalid, "no multiple of 2 heads")
    yield Misfit("broken MLP", good, fine | {"control_trans.0.weight": values(6, 7)}, invalid, "7")
    bare = {key: value for key, value in fine.items() if key != "control_trans.2.bias"}
    yield Misfit("no bias", good, bare, invalid, "weight and bias")
    yield Misfit("flat", good, {"control_trans": values(WIDE + 1)}, invalid, "per token")
    yield Misfit("flat and less", good, {"control_trans": values(1)}, invalid, "per token")
    strange = {"control_trans": values(2 * LAYERS, 2, HEADS, TOKENS, 4)}
    yield Misfit("batch of two", good, strange, invalid, "flat, or")
    yield Misfit("no sizes", config(n_head=...), fine, invalid, "n_head")
    yield Misfit("ids", good, {"wte.weight": torch.ones(2, 8).long()}, invalid, "floating-point")
    yield Misfit("a list", good, [values(2)], invalid, "state_dict")
    infinite = {**fine, "wte.weight": torch.full((TOKENS, HIDDEN), float("inf"))}
    yield Misfit("infinite", good, infinite, invalid, "NaN or infinite")


@pytest.mark.parametrize("misfit", list(misfits()), ids=lambda misfit: misfit.name)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_is_no_static_prefix_is_refused_by_name(misfit: Misfit, tmp_path: Path) -> None:
    if misfit.subfolder:
        (tmp_path / misfit.subfolder).mkdir()
    with pytest.raises(StoreError) as caught:
        from_li_liang(saved(tmp_path, misfit.about, misfit.tensors))
    assert caught.value.code == misfit.code
    assert misfit.said in caught.value.message


class Trap:
    """What a hostile pickle looks like."""

    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("raise SystemExit('it ran')",)


@pytest.mark.parametrize("container", ["zip", "legacy", "pickle"])
def test_a_pickle_that_runs_code_is_not_run(tmp_path: Path, container: str) -> None:
    saved(tmp_path, config(), {})
    path = tmp_path / "pytorch_model.bin"
    if container == "pickle":
        path.write_bytes(pickle.dumps({"wte.weight": Trap()}))
    else:
        torch.save({"wte.weight": Trap()}, path, _use_new_zipfile_serialization=container == "zip")
    with pytest.raises(StoreError) as caught:
        from_li_liang(tmp_path)
    assert caught.value.code == "unsafe_format"


@pytest.mark.parametrize("data", [b"", b"not a checkpoint", b"PK\x03\x04"])
def test_noise_is_refused(tmp_path: Path, data: bytes) -> None:
    saved(tmp_path, config(), {})
    (tmp_path / "pytorch_model.bin").write_bytes(data)
    with pytest.raises(StoreError) as caught:
        from_li_liang(tmp_path)
    assert caught.value.code in {"invalid_prefix", "unsafe_format"}


# Method, sites, and what the reference calls the native tensors.
GOLDEN = {
    "bart-deep-p5": ("PREFIX_TUNING", {"cross": 5, "decoder": 5, "encoder": 5}),
    "bart-full-p7": ("PREFIX_TUNING", {"cross": 7, "decoder": 7, "encoder": 7}),
    "bart-self-p7": ("PREFIX_TUNING", {"decoder": 7}),
    "gpt2-deep-p5": ("PREFIX_TUNING", {"decoder": 5}),
    "gpt2-emb-direct-p5": ("PROMPT_TUNING", {"embeddings": 5}),
    "gpt2-emb-mlp-p5": ("P_TUNING", {"embeddings": 5}),
    "gpt2-infix-p5": ("INFIX_EMBEDDING", {"decoder": 5, "embeddings": 5}),
    "gpt2-lowdata-p4": ("PREFIX_TUNING", {"decoder": 4}),
    "gpt2-mlp-p5": ("PREFIX_TUNING", {"decoder": 5}),
    "gpt2-mlp-p10": ("PREFIX_TUNING", {"decoder": 10}),
    "gpt2-shallow-p6": ("PREFIX_TUNING", {"decoder": 6}),
    "gpt2-shallow-word-p3": ("PREFIX_TUNING", {"decoder": 3}),
}


@pytest.mark.shared
@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_every_kind_and_container_of_the_reference_data(shared: Path, name: str) -> None:
    folder = shared / "golden_original" / "checkpoints" / name
    found: PrefixFile = parse(from_li_liang(folder))
    assert (found.meta.method, found.sites) == GOLDEN[name]
    assert found.offset("decoder") == (
        0 if name.startswith("bart") else found.sites.get("decoder", 0)
    )
    expected = load_file(folder / "folded.safetensors")
    expected.setdefault("embeddings", expected.get("infix_embeddings", np.empty(0)))
    for site, tensor in found.tensors.items():
        np.testing.assert_allclose(tensor.floats(), expected[site], rtol=0, atol=2e-6)


@pytest.mark.shared
def test_the_reference_data_has_no_other_kinds(shared: Path) -> None:
    folders = (shared / "golden_original" / "checkpoints").iterdir()
    assert {folder.name for folder in folders} == GOLDEN.keys()
