"""AdapterHub's prefix tuning: flat and behind its MLP, and what is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from prefixmux_store.convert.adapterhub import from_adapterhub, is_adapterhub
from prefixmux_store.errors import StoreError
from prefixmux_store.format import parse
from prefixmux_store.meta import METHODS
from prefixmux_store.validate import ModelShape
from store.makers import HEADS, HIDDEN, LAYERS, SEQ2SEQ, SHAPE, WIDTH

TOKENS, MIDDLE, NAME = 3, 6, "e2e"
CAUSAL = replace(SHAPE, methods=tuple(METHODS))
BART = replace(SEQ2SEQ, methods=tuple(METHODS))
Tensors = Mapping[str, torch.Tensor]


def config(model: str = "gpt2", **changes: object) -> dict[str, object]:
    """What the library 1.3 writes."""
    prefix = {
        "architecture": "prefix_tuning",
        "bottleneck_size": MIDDLE,
        "cross_prefix": True,
        "dropout": 0.0,
        "encoder_prefix": True,
        "flat": False,
        "leave_out": [],
        "non_linearity": "tanh",
        "prefix_length": TOKENS,
        "shared_gating": True,
        "use_gating": False,
        **changes,
    }
    about = {"hidden_size": HIDDEN, "model_name": "tiny", "model_type": model, "name": NAME}
    return {"config": prefix, **about, "version": "adapters.1.3.0"}


def values(*sizes: int) -> torch.Tensor:
    made = np.random.default_rng(sum(sizes)).standard_normal(sizes).astype("<f4")
    return torch.from_numpy(made)


def flat(site: str = "self_prefix", layers: int = LAYERS, root: str = "transformer.") -> Tensors:
    name = f"{root}prefix_tuning.prefix_tunings.{NAME}.{site}.control_trans"
    return {name: values(TOKENS * 2 * layers * HEADS * WIDTH)}


def mlp(site: str = "self_prefix", layers: int = LAYERS) -> Tensors:
    name = f"transformer.prefix_tuning.prefix_tunings.{NAME}.{site}"
    wide = 2 * layers * HEADS * WIDTH
    return {
        f"{name}.wte.weight": values(TOKENS, HIDDEN),
        f"{name}.control_trans.0.weight": values(MIDDLE, HIDDEN),
        f"{name}.control_trans.0.bias": values(MIDDLE),
        f"{name}.control_trans.2.weight": values(wide, MIDDLE),
        f"{name}.control_trans.2.bias": values(wide),
    }


def saved(folder: Path, about: object, tensors: Tensors, *, safe: bool = False) -> Path:
    (folder / "adapter_config.json").write_text(json.dumps(about))
    if safe:
        save_file(dict(tensors), folder / "adapter.safetensors")
    else:
        torch.save(dict(tensors), folder / "pytorch_adapter.bin")
    return folder


def as_the_library_does(key_values: torch.Tensor, layers: int) -> list[tuple[np.ndarray, ...]]:
    """Its forward pass for a batch of one: view, permute, split by two."""
    viewed = key_values.reshape(1, TOKENS, layers * 2, HEADS, WIDTH)
    parts = torch.split(viewed.permute(2, 0, 3, 1, 4), 2)
    return [(part[0, 0].numpy(), part[1, 0].numpy()) for part in parts]


def check(native: np.ndarray, key_values: torch.Tensor, layers: int = LAYERS) -> None:
    """`native` is `[L, 2, P, H, D]`, the library's are `[H, P, D]`."""
    for layer, both in enumerate(as_the_library_does(key_values, layers)):
        for part in (0, 1):
            expected = both[part].transpose(1, 0, 2)
            np.testing.assert_allclose(native[layer, part], expected, atol=1e-5)


@pytest.mark.parametrize("safe", [True, False])
def test_a_flat_prefix_is_laid_out_by_layer(tmp_path: Path, safe: bool) -> None:
    folder = saved(tmp_path, config(flat=True), flat(), safe=safe)
    found = parse(from_adapterhub(folder, CAUSAL))
    check(found.tensors["decoder"].floats(), next(iter(flat().values())))
    assert (found.meta.method, found.offset("decoder")) == ("PREFIX_TUNING", 0)
    assert found.meta.base_model == "tiny"


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("tanh", torch.tanh),
        ("relu", torch.relu),
        ("Swish", torch.nn.functional.silu),
        ("silu", torch.nn.functional.silu),
        ("sigmoid", torch.sigmoid),
    ],
)
def test_the_mlp_is_applied(
    tmp_path: Path, name: str, function: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    folder = saved(tmp_path, config(non_linearity=name), mlp())
    found = parse(from_adapterhub(folder, CAUSAL))
    table, first, add_first, second, add_second = mlp().values()
    wide = function(table @ first.T + add_first) @ second.T + add_second
    check(found.tensors["decoder"].floats(), wide)


def test_an_encoder_decoder_model_has_three_sites(tmp_path: Path) -> None:
    tensors = {**flat(), **flat("encoder_prefix", 3), **flat("cross_prefix")}
    folder = saved(tmp_path, config("bart", flat=True), tensors)
    found = parse(from_adapterhub(folder, BART))
    assert found.sites == {"cross": TOKENS, "decoder": TOKENS, "encoder": TOKENS}
    assert [found.offset(site) for site in found.sites] == [0, 0, 0]
    for site, (key, layers) in {
        "decoder": ("self_prefix", LAYERS),
        "encoder": ("encoder_prefix", 3),
        "cross": ("cross_prefix", LAYERS),
    }.items():
        check(found.tensors[site].floats(), next(iter(flat(key, layers).values())), layers)


def test_the_same_tensors_under_every_layer_count_once(tmp_path: Path) -> None:
    layers = [f"transformer.h.{number}.attn.prefix_tuning.pool." for number in range(LAYERS)]
    many = {name: part for root in layers for name, part in flat(root=root).items()}
    found = parse(from_adapterhub(saved(tmp_path, config(flat=True), many), CAUSAL))
    check(found.tensors["decoder"].floats(), next(iter(flat().values())))


@dataclass(frozen=True)
class Misfit:
    name: str
    about: object
    tensors: Tensors
    code: str
    said: str
    shape: ModelShape = CAUSAL


def misfits() -> Iterator[Misfit]:
    unsupported, invalid, other = "unsupported_method", "invalid_prefix", "incompatible_prefix"
    about, fine = config(flat=True), flat()
    gate = {"transformer.h.0.attn.prefix_tuning.prefix_gates.e2e.weight": values(1, HIDDEN)}
    yield Misfit("gated", config(use_gating=True), fine, unsupported, "use_gating")
    yield Misfit("gated in secret", about, {**fine, **gate}, unsupported, "use_gating")
    yield Misfit("T5", config("t5", flat=True), fine, unsupported, "T5", BART)
    yield Misfit("mT5", config("mt5", flat=True), fine, unsupported, "T5", BART)
    yield Misfit("layers left out", config(leave_out=[1]), fine, unsupported, "leave_out")
    for kind in ("lora", "union", "prompt_tuning", None):
        yield Misfit(f"{kind}", config(architecture=kind), fine, unsupported, str(kind))
    yield Misfit("no config", {"config": "pfeiffer"}, fine, unsupported, "pfeiffer")
    yield Misfit("gelu", config(non_linearity="gelu"), mlp(), unsupported, "gelu")
    yield Misfit("another length", config(flat=True, prefix_length=4), fine, other, "4 tokens x")
    yield Misfit("another length behind an MLP", config(prefix_length=4), mlp(), invalid, "wte")
    yield Misfit("no length", config(prefix_length=None), fine, invalid, "prefix_length")
    yield Misfit("fewer layers", about, flat(layers=1), other, "2 layers, 2 heads of 4")
    yield Misfit("fewer layers, MLP", config(), mlp(layers=1), other, "2 layers")
    yield Misfit("flat in name only", about, mlp(), other, "decoder")
    yield Misfit("an MLP in name only", config(), fine, invalid, "wte")
    yield Misfit("no such site", about, flat("encoder_prefix"), other, "site encoder")
    yield Misfit("an encoder's own", about, flat("self"), invalid, "no prefix for")
    yield Misfit("nothing", about, {}, invalid, "0 prefixes")
    two = {**fine, **{name.replace(NAME, "other"): part for name, part in fine.items()}}
    yield Misfit("two prefixes", about, two, invalid, "2 prefixes")
    apart = {f"x.{name}": part + 1 for name, part in fine.items()}
    yield Misfit("layers that differ", about, {**fine, **apart}, invalid, "differs")
    yield Misfit("more", about, {**fine, "classifier.weight": values(2, 2)}, invalid, "classifier")


@pytest.mark.parametrize("misfit", list(misfits()), ids=lambda misfit: misfit.name)
def test_misfits_are_refused_by_name(misfit: Misfit, tmp_path: Path) -> None:
    folder = saved(tmp_path, misfit.about, misfit.tensors)
    with pytest.raises(StoreError) as caught:
        from_adapterhub(folder, misfit.shape)
    assert caught.value.code == misfit.code
    assert misfit.said in caught.value.message


def test_its_config_is_told_from_peft_s() -> None:
    assert is_adapterhub(config())
    assert not is_adapterhub({"peft_type": "PREFIX_TUNING", "config": {}})
    assert not is_adapterhub({})
