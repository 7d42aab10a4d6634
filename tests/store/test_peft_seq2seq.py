"""PEFT's keys and values for encoder-decoder models: its slot rule, resolved at import."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from prefixmux_store.convert.peft import from_peft
from prefixmux_store.errors import StoreError
from prefixmux_store.format import parse
from prefixmux_store.validate import ModelShape, SiteShape
from store.makers import HEADS, SEQ2SEQ, WIDTH, tensor
from store.peft_files import config_file, weights_file

TOKENS = 3


def shape_of(layers: int) -> ModelShape:
    """A model with so many layers in its decoder."""
    sites = {**SEQ2SEQ.sites, "decoder": SiteShape(layers, HEADS, WIDTH, WIDTH)}
    return replace(SEQ2SEQ, layers=layers, sites=sites)


def config(layers: int, method: str = "PREFIX_TUNING", **changes: object) -> bytes:
    return config_file(method, "seq2seq", **{"num_layers": layers, **changes})


def weights(layers: int, dtype: str = "F32") -> bytes:
    part = tensor((TOKENS, 2 * layers * HEADS * WIDTH), 7, dtype)
    return weights_file(prompt_embeddings=part)


def as_peft_does(
    words: npt.NDArray[np.unsignedinteger], layers: int, decoder_layers: int, heads: int
) -> npt.NDArray[np.unsignedinteger]:
    """Step by step as its `get_prompt` goes: view, double, permute, split by four; then each
    decoder layer takes keys and values from the first two of its chunk."""
    tokens = words.shape[0]
    viewed = words.reshape(tokens, 2 * layers, heads, -1)
    doubled = np.concatenate([viewed, viewed], axis=1)
    chunks = np.split(doubled.transpose(1, 2, 0, 3), layers)
    native = [
        [chunks[layer][part].transpose(1, 0, 2) for part in (0, 1)]
        for layer in range(decoder_layers)
    ]
    return np.array(native)


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize("method", ["PREFIX_TUNING", "CARTRIDGE"])
@pytest.mark.parametrize(
    ("layers", "decoder"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (3, 2), (4, 1), (7, 3)]
)
def test_each_decoder_layer_gets_the_slot_that_peft_gives_it(
    layers: int, decoder: int, method: str, dtype: str
) -> None:
    found = parse(from_peft(config(layers, method), weights(layers, dtype), shape_of(decoder)))
    words = tensor((TOKENS, 2 * layers * HEADS * WIDTH), 7, dtype).words()
    expected = as_peft_does(words, layers, decoder, HEADS)
    np.testing.assert_array_equal(found.tensors["decoder"].words(), expected)
    assert found.tensors.keys() == {"decoder"}
    assert found.meta.base.layers == decoder
    assert found.offset("decoder") == TOKENS


@pytest.mark.parametrize(("layers", "slots"), [(2, [0, 0]), (3, [0, 2, 1]), (4, [0, 2, 0, 2])])
def test_half_of_an_even_file_is_never_used(layers: int, slots: list[int]) -> None:
    found = parse(from_peft(config(layers), weights(layers), shape_of(layers))).tensors["decoder"]
    rows = tensor((TOKENS, 2 * layers * HEADS * WIDTH), 7).words()
    by_slot = rows.reshape(TOKENS, layers, 2, HEADS, WIDTH).transpose(1, 2, 0, 3, 4)
    for layer, slot in enumerate(slots):
        np.testing.assert_array_equal(found.words()[layer], by_slot[slot])


Misfit = tuple[str, bytes, bytes, str, str | None]


def misfits() -> Iterator[Misfit]:
    """Name, both files, code and reason."""
    fine = weights(2)
    for count in (1, 3, 0, "2"):
        about = config(2, num_transformer_submodules=count)
        yield f"submodules {count!r}", about, fine, "unsupported_method", None
    for task in (None, "CAUSAL_LM", "SEQ_CLS", ["SEQ_2_SEQ_LM"]):
        yield f"task {task}", config(2, task_type=task), fine, "unsupported_method", None
    for method in ("CPT", "ADAPTION_PROMPT", "LORA"):
        yield method, config(2, method), fine, "unsupported_method", None
    modules = config(2, modules_to_save=["lm_head"])
    yield "modules", modules, fine, "unsupported_method", None
    yield "fewer layers", config(1), weights(1), "incompatible_prefix", None
    heads = config(2, num_attention_heads=4)
    yield "other heads", heads, fine, "incompatible_prefix", None
    yield "lie", config(3), fine, "invalid_prefix", "shape"


MISFITS = list(misfits())


@pytest.mark.parametrize("misfit", MISFITS, ids=[misfit[0] for misfit in MISFITS])
def test_misfits_are_refused_by_code_and_reason(misfit: Misfit) -> None:
    _, about, data, code, reason = misfit
    with pytest.raises(StoreError) as caught:
        from_peft(about, data, shape_of(2))
    assert (caught.value.code, caught.value.reason) == (code, reason)


def test_fewer_layers_than_the_decoder_has_names_both_sides() -> None:
    with pytest.raises(StoreError, match="layers 1 in the prefix, 2 in the model's decoder"):
        from_peft(config(1), weights(1), shape_of(2))
