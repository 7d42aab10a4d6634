"""PEFT's embedding methods to native files: which rows count, and one task of several."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from prefixmux_store.convert.peft import from_peft
from prefixmux_store.errors import StoreError
from prefixmux_store.format import RawTensor, parse
from prefixmux_store.validate import ModelShape
from store.makers import HIDDEN, SEQ2SEQ, SHAPE, tensor
from store.peft_files import config_file, weights_file

TOKENS, TASKS, RANKS = 3, 2, 2
MULTITASK = "MULTITASK_PROMPT_TUNING"
METHODS = ("PROMPT_TUNING", "P_TUNING", MULTITASK)
SHAPES = {
    "causal": replace(SHAPE, methods=METHODS),
    "seq2seq": replace(SEQ2SEQ, methods=METHODS),
}


def config(method: str = "PROMPT_TUNING", family: str = "causal", **changes: object) -> bytes:
    sizes: dict[str, object] = {"token_dim": HIDDEN, "num_tasks": TASKS, "num_ranks": RANKS}
    return config_file(method, family, **{**sizes, **changes})


def prompt(rows: int = TOKENS, width: int = HIDDEN, dtype: str = "F32") -> RawTensor:
    return tensor((rows, width), 5, dtype)


def tasks(rows: int = TOKENS, dtype: str = "F32") -> dict[str, RawTensor]:
    return {
        "prompt_embeddings": prompt(rows, dtype=dtype),
        "prefix_task_cols": tensor((TASKS, rows, RANKS), 6, dtype),
        "prefix_task_rows": tensor((TASKS, RANKS, HIDDEN), 7, dtype),
    }


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("method", ["PROMPT_TUNING", "P_TUNING"])
def test_the_embeddings_are_kept_as_they_are(method: str, dtype: str) -> None:
    data = weights_file(prompt_embeddings=prompt(dtype=dtype))
    found = parse(from_peft(config(method), data, SHAPES["causal"]))
    assert found.meta.method == method
    assert found.sites == {"embeddings": TOKENS}
    assert found.tensors["embeddings"].dtype == dtype
    assert found.tensors["embeddings"].data == prompt(dtype=dtype).data


@pytest.mark.parametrize("submodules", [1, 2, None, ...])
def test_an_encoder_gets_the_first_half_of_the_rows(submodules: object) -> None:
    rows = TOKENS if submodules == 1 else 2 * TOKENS
    about = config("P_TUNING", "seq2seq", num_transformer_submodules=submodules)
    data = weights_file(prompt_embeddings=prompt(rows))
    found = parse(from_peft(about, data, SHAPES["seq2seq"])).tensors["embeddings"]
    assert found.shape == (TOKENS, HIDDEN)
    np.testing.assert_array_equal(found.words(), prompt(rows).words()[:TOKENS])


@pytest.mark.parametrize("family", ["causal", "seq2seq"])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("task", range(TASKS))
def test_a_task_is_the_shared_prompt_times_its_own_matrix(
    family: str, dtype: str, task: int
) -> None:
    held = tasks(TOKENS if family == "causal" else 2 * TOKENS, dtype)
    made = from_peft(config(MULTITASK, family), weights_file(**held), SHAPES[family], task)
    found = parse(made)
    wide = {name: part.floats().astype(np.float64) for name, part in held.items()}
    matrix = wide["prefix_task_cols"][task] @ wide["prefix_task_rows"][task]
    expected = (wide["prompt_embeddings"] * matrix)[:TOKENS]
    assert found.tensors["embeddings"].dtype == "F32"
    np.testing.assert_allclose(found.tensors["embeddings"].floats(), expected, rtol=0, atol=2e-6)
    assert (found.meta.method, found.meta.provenance["task_index"]) == (MULTITASK, task)


def test_a_tasks_bits_are_the_same_on_every_machine() -> None:
    """Worked out once, rank after rank in single precision: a matrix product gives others."""

    def thirds(*sizes: int) -> RawTensor:
        values = (np.arange(np.prod(sizes)) % 23 - 11).astype(np.float32) / np.float32(3)
        return RawTensor("F32", sizes, memoryview(values.tobytes()))

    held = weights_file(
        prompt_embeddings=thirds(TOKENS, HIDDEN),
        prefix_task_cols=thirds(TASKS, TOKENS, 5),
        prefix_task_rows=thirds(TASKS, 5, HIDDEN),
    )
    found = parse(from_peft(config(MULTITASK, num_ranks=5), held, SHAPES["causal"], 1))
    bits = hashlib.sha256(found.tensors["embeddings"].data).hexdigest()
    assert bits == "4d4b49f52b98d9e76037da84c04adfcb3b39b22a6794d3d1b4c99d0d6e0b9c32"


def test_widening_is_exact() -> None:
    values = np.array([1.0, -0.0, 6e-8, -3.140625, 65504.0], np.float32)
    half = RawTensor("F16", (5,), memoryview(values.astype("<f2").tobytes()))
    np.testing.assert_array_equal(half.floats(), values.astype(np.float16).astype(np.float32))
    brain = RawTensor("BF16", (5,), memoryview((values.view("<u4") >> 16).astype("<u2").tobytes()))
    cut = (values.view("<u4") & np.uint32(0xFFFF0000)).view("<f4")
    np.testing.assert_array_equal(brain.floats(), cut)
    full = RawTensor("F32", (5,), memoryview(values.tobytes()))
    np.testing.assert_array_equal(full.floats(), values)


Misfit = tuple[str, str, bytes, bytes, int | None, str, str | None]


def misfits() -> Iterator[Misfit]:
    """Name, family, both files, task index, code and reason."""
    fine = weights_file(prompt_embeddings=prompt())
    double = weights_file(prompt_embeddings=prompt(2 * TOKENS))
    yield "task index", "causal", config(), fine, 0, "invalid_request", None
    two = config(num_transformer_submodules=2)
    yield "two submodules", "causal", two, double, None, "unsupported_method", None
    three = config(family="seq2seq", num_transformer_submodules=3)
    yield "three submodules", "seq2seq", three, double, None, "unsupported_method", None
    yield "other family", "seq2seq", config(), fine, None, "unsupported_method", None
    other = config(family="seq2seq")
    yield "other family too", "causal", other, double, None, "unsupported_method", None
    untold = config(family="seq2seq", task_type=None)
    yield "no task type", "seq2seq", untold, double, None, "unsupported_method", None
    yield "half the rows", "seq2seq", other, fine, None, "invalid_prefix", "shape"
    yield "double the rows", "causal", config(), double, None, "invalid_prefix", "shape"
    for lie in (config(num_virtual_tokens=4), config(token_dim=HIDDEN + 1)):
        yield f"lie {lie[-40:]!r}", "causal", lie, fine, None, "invalid_prefix", "shape"
    for bad in (None, ..., "3", True, -1):
        about = config(num_virtual_tokens=bad)
        yield f"tokens {bad}", "causal", about, fine, None, "invalid_prefix", "metadata"
    wide = weights_file(prompt_embeddings=prompt(width=HIDDEN + 1))
    about = config(token_dim=HIDDEN + 1)
    yield "another width", "causal", about, wide, None, "incompatible_prefix", None
    saved = config(modules_to_save=["lm_head"])
    yield "modules", "causal", saved, fine, None, "unsupported_method", None
    flat = weights_file(prompt_embeddings=tensor((TOKENS * HIDDEN,)))
    yield "flat", "causal", config(), flat, None, "invalid_prefix", "shape"
    encoder = weights_file(prompt_embeddings=prompt(), mlp_head=tensor((2, 2)))
    yield "an encoder too", "causal", config(), encoder, None, "invalid_prefix", "names"
    yield (
        "tasks in one",
        "causal",
        config(),
        weights_file(**tasks()),
        None,
        "invalid_prefix",
        "names",
    )

    many, held = config(MULTITASK), tasks()
    data = weights_file(**held)
    for index in (None, -1, TASKS, 10**30):
        yield f"index {index}", "causal", many, data, index, "invalid_request", None
    for name in held:
        rest = {other: part for other, part in held.items() if other != name}
        yield f"no {name}", "causal", many, weights_file(**rest), 0, "invalid_prefix", "names"
        cut = {**held, name: tensor((1, *held[name].shape[1:]))}
        yield f"cut {name}", "causal", many, weights_file(**cut), 0, "invalid_prefix", "shape"
        flat = weights_file(**{**held, name: tensor((9,))})
        yield f"flat {name}", "causal", many, flat, 0, "invalid_prefix", "shape"
    sizes: dict[object, str] = {3: "shape", 0: "empty", "2": "metadata"}
    for size, reason in sizes.items():
        about = config(MULTITASK, num_tasks=size)
        yield f"tasks {size!r}", "causal", about, data, 0, "invalid_prefix", reason
        about = config(MULTITASK, num_ranks=size)
        yield f"ranks {size!r}", "causal", about, data, 0, "invalid_prefix", reason
    large = {name: _scaled(part, 1000.0) for name, part in held.items()}
    yield "magnitude", "causal", many, weights_file(**large), 0, "invalid_prefix", "magnitude"
    endless = {**held, "prefix_task_cols": _scaled(held["prefix_task_cols"], np.inf)}
    yield "infinite", "causal", many, weights_file(**endless), 0, "invalid_prefix", "non_finite"


def _scaled(part: RawTensor, factor: float) -> RawTensor:
    return RawTensor("F32", part.shape, memoryview((part.floats() * np.float32(factor)).tobytes()))


MISFITS = list(misfits())


@pytest.mark.parametrize("misfit", MISFITS, ids=[misfit[0] for misfit in MISFITS])
def test_misfits_are_refused_by_code_and_reason(misfit: Misfit) -> None:
    _, family, about, data, index, code, reason = misfit
    shape: ModelShape = SHAPES[family]
    with pytest.raises(StoreError) as caught:
        from_peft(about, data, shape, index)
    assert (caught.value.code, caught.value.reason) == (code, reason)
    assert len(caught.value.message) < 500


def test_which_task_is_asked_for_says_how_many_there_are() -> None:
    with pytest.raises(StoreError, match=r"holds 2 tasks: .* 0 to 1") as caught:
        from_peft(config(MULTITASK), weights_file(**tasks()), SHAPES["causal"])
    assert caught.value.param == "task_index"
