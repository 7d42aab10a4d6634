"""Virtual tokens that were stored as inputs: run once when they are loaded, then KV like any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine.prefixes import kv_of
from engine.twin import Twin, check_answers, check_unused
from support.checks import error_code
from support.engines import TENANT, Answers, HeldExecutor, answer, engine_over
from support.native import native_file
from support.shapes import shape_of
from support.slow import Piece
from support.sources import Counted
from support.stored import upload
from support.tiny import prompt

from prefixmux_server.engine.build import compiler
from prefixmux_server.engine.compile import Compiler
from prefixmux_server.memory.entries import State
from prefixmux_server.memory.memory import KVMemory
from prefixmux_server.memory.prefix import DECODER, PrefixKey
from prefixmux_server.memory.select import LayoutName, make_memory
from prefixmux_server.memory.source import PrefixLoadError, StoreSource
from prefixmux_store.blobs import BlobStore
from prefixmux_store.files import OsFiles
from prefixmux_store.store import PrefixStore

INPUTS = ("embedded", "text")


@pytest.fixture(params=["causal", "seq2seq"])
def twin(request: pytest.FixtureRequest) -> Twin:
    found: Twin = request.getfixturevalue(request.param)
    return found


def scratch(twin: Twin, layout: LayoutName) -> Callable[[int], KVMemory]:
    cpu = torch.device("cpu")
    return lambda tokens: make_memory(
        layout, twin.loaded.specs, tokens + 63, torch.float32, cpu, poison=True
    )


def stored(twin: Twin, root: Path) -> tuple[StoreSource, dict[str, PrefixKey]]:
    """The twin's pieces in a real store."""
    with PrefixStore.open(root) as store:
        digests = {
            name: upload(store, twin.loaded, name, native_file(piece))
            for name, piece in twin.pieces.items()
        }
    source = StoreSource(
        BlobStore(root, OsFiles()), shape_of(twin.loaded), torch.float32, pin=False
    )
    return source, {name: PrefixKey(TENANT, digest) for name, digest in digests.items()}


def test_what_is_announced_is_what_is_held(twin: Twin, layout: LayoutName, tmp_path: Path) -> None:
    """Else the budget for prefixes would not hold. Text that stays text weighs next to nothing."""
    source, keys = stored(twin, tmp_path)
    compile = compiler(twin.loaded, scratch(twin, layout)(64))
    for name, key in keys.items():
        held = compile(source.load(key))
        assert held.key == key
        if held.token_ids:
            assert held.nbytes <= source.size(key)
        else:
            assert held.nbytes == source.size(key), name


@pytest.mark.parametrize("name", INPUTS)
def test_it_is_kv_of_one_run_at_the_first_positions(
    causal: Twin, layout: LayoutName, name: str
) -> None:
    piece = causal.pieces[name]
    kv = Compiler(causal.loaded.model, scratch(causal, layout))(kv_of(name, piece))
    assert kv.inputs == 0
    assert kv.offsets == {DECODER: kv.size}
    torch.testing.assert_close(kv.sites[DECODER], causal.slow.compile(piece), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tokens", [1, 64, 1025])
@pytest.mark.parametrize("name", INPUTS)
def test_of_any_length(causal: Twin, layout: LayoutName, name: str, tokens: int) -> None:
    """Long ones run in parts."""
    ids = prompt(tokens, seed=tokens)
    piece = Piece("TEXT", token_ids=ids)
    if name == "embedded":
        piece = Piece("PROMPT_TUNING", embeddings=causal.slow.model.embed(ids))
    kv = Compiler(causal.loaded.model, scratch(causal, layout))(kv_of(name, piece))
    torch.testing.assert_close(kv.sites[DECODER], causal.slow.compile(piece), atol=1e-3, rtol=1e-3)


def test_evicted_and_read_again(twin: Twin, layout: LayoutName, tmp_path: Path) -> None:
    """Room for one of them at a time: each is compiled anew, and the budget holds all along."""
    source, keys = stored(twin, tmp_path)
    counted = Counted(source)
    largest = max(source.size(keys[name]) for name in (*INPUTS, "five"))
    engine, _, residency = engine_over(
        twin.loaded, layout, counted, host_bytes=largest, device_bytes=largest
    )
    requests = [
        twin.ask(f"{n}", name, new=3) for n, name in enumerate(("embedded", "text", "five") * 2)
    ]
    answers = Answers()
    for request in requests:
        digests = tuple(keys[name].digest for name in request.prefixes)
        engine.submit(replace(request, prefixes=digests))
    while engine.has_work:
        assert answers.step(engine)
        assert residency.host_bytes <= largest
    check_answers(twin, answers, requests)
    assert counted.reloads >= 2


@pytest.mark.parametrize("name", INPUTS)
def test_it_is_compiled_once_for_all(causal: Twin, layout: LayoutName, name: str) -> None:
    parts = causal.engine(layout)
    requests = [causal.ask(f"{n}", name, "five") for n in range(4)]
    for request in requests:
        check_answers(causal, answer(parts.engine, [request]), [request])
    key = PrefixKey(TENANT, name)
    assert parts.source.loads.count(key) == 1
    assert parts.residency.state(key) is (State.HOST if layout == "rows" else State.DEVICE)


def test_embeddings_that_are_not_finite_fail_alone(causal: Twin, layout: LayoutName) -> None:
    """And whoever asks later is told again, not served what is left of it."""
    parts = causal.engine(layout, source=causal.source(ill={"embedded"}), capacity=448)
    fine = [causal.ask("text", "text"), causal.ask("bare")]
    for _ in range(2):
        answers = answer(parts.engine, [causal.ask("ill", "embedded", "five"), *fine])
        assert error_code(answers, "ill") == "non_finite_output"
        check_answers(causal, answers, fine)
    check_unused(parts)


def test_tokens_that_the_model_cannot_run_fail_alone(causal: Twin, layout: LayoutName) -> None:
    source = causal.source()
    key = PrefixKey(TENANT, "text")
    source.prefixes[key] = replace(source.prefixes[key], token_ids=(5, 10_000))
    parts = causal.engine(layout, source=source)
    fine = causal.ask("fine", "embedded")
    answers = answer(parts.engine, [causal.ask("ill", "text"), fine])
    assert error_code(answers, "ill") == "prefix_unavailable"
    check_answers(causal, answers, [fine])


def test_no_memory_to_run_them_in(causal: Twin) -> None:
    """The engine goes on: it is this prefix that is not there."""

    def short(tokens: int) -> KVMemory:
        raise MemoryError

    compiler = Compiler(causal.loaded.model, short)
    with pytest.raises(PrefixLoadError) as caught:
        compiler(kv_of("text", causal.pieces["text"]))
    assert caught.value.code == "prefix_unavailable"
    assert compiler(kv_of("five", causal.pieces["five"])).sites


def test_whoever_waits_may_leave_before_they_are_compiled(causal: Twin, layout: LayoutName) -> None:
    loads = HeldExecutor()
    parts, answers = causal.engine(layout, executor=loads, capacity=448), Answers()
    parts.engine.submit(causal.ask("gone", "embedded", "text"))
    parts.engine.step()
    parts.engine.abort("gone")
    loads.run_all()
    stays = causal.ask("stays", "text")
    parts.engine.submit(stays)
    answers.run(parts.engine)
    check_answers(causal, answers, [stays])
    check_unused(parts)
