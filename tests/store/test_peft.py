"""PEFT's files to native ones: the layout, and what is refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from prefixmux_store.convert.peft import from_peft
from prefixmux_store.errors import StoreError
from prefixmux_store.format import parse
from store.makers import HEADS, LAYERS, SHAPE, WIDTH, box, entry, tensor
from store.zoo import Animal, animals

TOKENS = 3
COLUMNS = 2 * LAYERS * HEADS * WIDTH


def config(**changes: object) -> bytes:
    """What PEFT 0.21 writes; a change to `...` leaves the key out."""
    content: dict[str, object] = {
        "auto_mapping": None,
        "base_model_name_or_path": "models/tiny",
        "encoder_hidden_size": 16,
        "inference_mode": True,
        "modules_to_save": None,
        "num_attention_heads": HEADS,
        "num_layers": LAYERS,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": TOKENS,
        "peft_type": "PREFIX_TUNING",
        "peft_version": "0.21.2",
        "prefix_projection": False,
        "revision": None,
        "task_type": "CAUSAL_LM",
        "token_dim": HEADS * WIDTH,
        **changes,
    }
    return json.dumps({k: v for k, v in content.items() if v is not ...}).encode()


def weights(shape: tuple[int, ...] = (TOKENS, COLUMNS), dtype: str = "F32") -> bytes:
    part = tensor(shape, 7, dtype)
    made = {"prompt_embeddings": entry(list(shape), [0, part.nbytes], dtype)}
    return box(made, bytes(part.data), {"format": "pt"})


def by_hand(words: np.ndarray, layers: int, heads: int) -> np.ndarray:
    """SEMANTICS: row 2l of a token holds layer l's keys, row 2l + 1 its values."""
    tokens = words.shape[0]
    rows = words.reshape(tokens, 2 * layers, heads, -1)
    native = np.empty((layers, 2, tokens, heads, rows.shape[-1]), words.dtype)
    for layer in range(layers):
        for token in range(tokens):
            native[layer, 0, token] = rows[token, 2 * layer]
            native[layer, 1, token] = rows[token, 2 * layer + 1]
    return native


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("peft_type", ["PREFIX_TUNING", "CARTRIDGE"])
def test_the_tensor_is_viewed_by_layer_and_keeps_its_dtype(peft_type: str, dtype: str) -> None:
    found = parse(from_peft(config(peft_type=peft_type), weights(dtype=dtype), SHAPE))
    expected = by_hand(tensor((TOKENS, COLUMNS), 7, dtype).words(), LAYERS, HEADS)
    assert found.tensors["decoder"].dtype == dtype
    np.testing.assert_array_equal(found.tensors["decoder"].words(), expected)
    assert found.meta.method == peft_type
    assert found.offset("decoder") == TOKENS
    assert found.meta.base_model == "models/tiny"


def test_the_bytes_depend_on_the_two_files_only() -> None:
    other = replace(SHAPE, architecture="Other", fingerprint=None, vocabulary=7, hidden=99)
    first = from_peft(config(), weights(), SHAPE)
    assert first == from_peft(config(), weights(), other)
    # Reordered keys and what training alone uses say the same thing.
    reordered = json.dumps(dict(reversed(json.loads(config(encoder_hidden_size=99)).items())))
    assert first == from_peft(reordered.encode(), weights(), SHAPE)


@pytest.mark.parametrize(
    "changes",
    [
        {"task_type": None},
        {"task_type": ...},
        {"prefix_projection": True, "encoder_hidden_size": 512},
        {"auto_mapping": {"base_model_class": "os.system", "parent_library": "os"}},
        {"base_model_name_or_path": None},
        {"base_model_name_or_path": ["../../etc/passwd"]},
        {"num_transformer_submodules": None},
        {"a_field_of_the_future": {"x": [1, 2]}},
    ],
)
def test_what_does_not_matter_is_ignored(changes: dict[str, object]) -> None:
    assert parse(from_peft(config(**changes), weights(), SHAPE)).tokens == TOKENS


def test_provenance_is_short_and_printable() -> None:
    text = "😀\n\u202e" * 500
    made = from_peft(config(base_model_name_or_path=text, peft_version=text), weights(), SHAPE)
    name = parse(made).meta.base_model
    assert name is not None
    assert len(name) == 200
    assert name.startswith("😀??😀")


def misfits() -> Iterator[tuple[str, bytes, bytes, str, str | None]]:
    """Name, both files, code and reason."""
    good, fine = config(), weights()
    others = (
        *("LORA", "IA3", "ADALORA", "ADAPTION_PROMPT", "CPT", "prefix_tuning", "", "x" * 1000),
    )
    for peft_type in others:
        data = config(peft_type=peft_type)
        yield f"type {peft_type[:30]}", data, fine, "unsupported_method", None
    tasks: tuple[object, ...] = ("SEQ_2_SEQ_LM", "SEQ_CLS", "causal_lm", 1, ["CAUSAL_LM"], {})
    for task_type in tasks:
        data = config(task_type=task_type)
        yield f"task {task_type}", data, fine, "unsupported_method", None
    for modules in (["lm_head"], [], "lm_head"):
        data = config(modules_to_save=modules)
        yield f"modules {modules}", data, fine, "unsupported_method", None
    counts: tuple[object, ...] = (0, 2, 3, True, "1", 1.0)
    for count in counts:
        data = config(num_transformer_submodules=count)
        yield f"submodules {count!r}", data, fine, "unsupported_method", None

    bad_json = {
        "empty": b"",
        "cut": good[:-1],
        "array": b"[]",
        "NaN": good[:-1] + b', "x": NaN}',
        "not UTF-8": good[:-1] + b', "x": "\xff"}',
        "too large": good + b" " * 65536,
        "deep": b"[" * 60000,
    }
    for name, data in bad_json.items():
        yield f"config {name}", data, fine, "invalid_prefix", "metadata"
    twice = good[:-1] + b', "num_layers": 2}'
    yield "config twice", twice, fine, "invalid_prefix", "duplicate"
    strange: tuple[object, ...] = (None, 1, ["PREFIX_TUNING"], ...)
    for value in strange:
        data = config(peft_type=value)
        yield f"type of another type {value}", data, fine, "invalid_prefix", "metadata"
    for key in ("num_virtual_tokens", "num_layers", "num_attention_heads", "token_dim"):
        wrong: tuple[object, ...] = (None, ..., "2", 2.0, True, -1, [2])
        for value in wrong:
            data = config(**{key: value})
            yield f"{key} {value}", data, fine, "invalid_prefix", "metadata"
        data = config(**{key: 0})
        yield f"{key} 0", data, fine, "invalid_prefix", "empty"
    lies: tuple[tuple[str, int], ...] = (
        *(("num_virtual_tokens", TOKENS + 1), ("num_virtual_tokens", TOKENS - 1)),
        *(("num_virtual_tokens", 10**30), ("num_layers", LAYERS + 1), ("num_layers", 10**30)),
        *(("token_dim", HEADS * WIDTH + HEADS), ("num_attention_heads", 3), ("token_dim", 7)),
    )
    for key, lie in lies:
        yield f"lie {key} {lie}", config(**{key: lie}), fine, "invalid_prefix", "shape"

    honest: tuple[tuple[dict[str, object], tuple[int, int]], ...] = (
        ({"num_layers": LAYERS + 1}, (TOKENS, 2 * (LAYERS + 1) * HEADS * WIDTH)),
        ({"num_attention_heads": 1}, (TOKENS, COLUMNS)),
        ({"num_attention_heads": 4}, (TOKENS, COLUMNS)),
        ({"token_dim": 12}, (TOKENS, 2 * LAYERS * 12)),
        ({"num_layers": 1, "token_dim": 16}, (TOKENS, COLUMNS)),
    )
    for change, shape in honest:
        name = f"another model {change}"
        yield name, config(**change), weights(shape), "incompatible_prefix", None
    long = config(num_virtual_tokens=65)
    yield "too long", long, weights((65, COLUMNS)), "invalid_prefix", "too_long"

    yield "pickled weights", good, pickle.dumps({}), "unsafe_format", None
    yield "pickled config", pickle.dumps({}), fine, "unsafe_format", None
    yield (
        "pickled weights of a LoRA",
        config(peft_type="LORA"),
        pickle.dumps({}),
        "unsafe_format",
        None,
    )
    three = weights((TOKENS, 4, COLUMNS // 4))
    yield "three dimensions", good, three, "invalid_prefix", "shape"
    yield "one dimension", good, weights((TOKENS * COLUMNS,)), "invalid_prefix", "shape"
    lora = box({"base_model.model.q.lora_A.weight": entry([1], [0, 4])}, bytes(4))
    yield "other tensors", good, lora, "invalid_prefix", "names"
    native = box({"decoder": entry([2, 2, 3, 2, 4], [0, 384])}, bytes(384))
    yield "a native file", good, native, "invalid_prefix", "names"
    nan = box(
        {"prompt_embeddings": entry([TOKENS, COLUMNS], [0, 384])},
        np.full(96, np.nan, "<f4").tobytes(),
    )
    yield "NaN", good, nan, "invalid_prefix", "non_finite"


MISFITS = list(misfits())


@pytest.mark.parametrize(
    ("data", "tensors", "code", "reason"),
    [misfit[1:] for misfit in MISFITS],
    ids=[misfit[0] for misfit in MISFITS],
)
def test_misfits_are_refused_by_code_and_reason(
    data: bytes, tensors: bytes, code: str, reason: str | None
) -> None:
    with pytest.raises(StoreError) as caught:
        from_peft(data, tensors, SHAPE)
    assert (caught.value.code, caught.value.reason) == (code, reason)
    assert len(caught.value.message) < 500


def test_an_unsupported_type_is_named() -> None:
    with pytest.raises(StoreError, match="type LORA are not supported"):
        from_peft(config(peft_type="LORA"), weights(), SHAPE)


def test_a_prefix_for_another_model_names_both_sides() -> None:
    wide = weights((TOKENS, 2 * 5 * HEADS * WIDTH))
    with pytest.raises(StoreError, match="layers 5 in the prefix, 2 in the model"):
        from_peft(config(num_layers=5), wide, SHAPE)


@pytest.mark.parametrize("animal", list(animals()), ids=lambda animal: animal.name)
def test_the_zoo_is_refused_as_weights(animal: Animal) -> None:
    with pytest.raises(StoreError) as caught:
        from_peft(config(), animal.data, SHAPE)
    assert caught.value.code == animal.code
