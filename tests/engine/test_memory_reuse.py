"""Memory that goes from task to task: nobody ever sees what it held before."""

from __future__ import annotations

import pytest
import torch
from support.engines import Answers, DictSource, InlineExecutor, answer
from support.tiny import Tiny, ask

from prefixmux_server.engine.build import assemble
from prefixmux_server.engine.fit import Limits
from prefixmux_server.memory.entries import State
from prefixmux_server.memory.loader import PrefixLoader
from prefixmux_server.memory.prefix import PrefixKey
from prefixmux_server.memory.residency import Residency
from prefixmux_server.memory.select import LayoutName, make_memory

# One request with one prefix of 10 to 14 tokens, and nothing beside it.
TIGHT: dict[LayoutName, int] = {"rows": 64, "slots": 40}


def test_a_row_given_to_another_task_and_back(tiny: Tiny, layout: LayoutName) -> None:
    source = tiny.source(a=10, b=14)
    parts = tiny.engine(layout, source=source, capacity=TIGHT[layout])
    for turn in range(24):
        digest = "ab"[turn % 2]
        request = ask(f"{turn}", digest, tokens=8, new=12, seed=turn % 6)
        answers = answer(parts.engine, [request])
        assert answers.tokens[f"{turn}"] == tiny.expected(source, request)
        assert answers.finished[f"{turn}"].prefixes == (digest,)


def test_tasks_that_compete_for_tight_memory(tiny: Tiny, layout: LayoutName) -> None:
    source = tiny.source(a=10, b=14, c=3)
    parts = tiny.engine(layout, source=source, capacity=2 * TIGHT[layout], tokens=11)
    requests = [
        ask(f"{turn}", *(["a"], ["b"], ["c"], [])[turn % 4], tokens=1 + turn % 9, new=1 + turn % 12)
        for turn in range(40)
    ]
    answers = answer(parts.engine, requests)
    for request in requests:
        assert answers.tokens[request.id] == tiny.expected(source, request), request.id


def test_memory_is_given_back_to_the_last_token(tiny: Tiny, layout: LayoutName) -> None:
    """After any mixture, a request of the whole capacity still finds its room."""
    source = tiny.source(a=10, b=14)
    parts = tiny.engine(layout, source=source, capacity=192)
    answer(parts.engine, [ask(f"{n}", "ab"[n % 2], tokens=3 + n, new=4) for n in range(12)])
    whole = ask("whole", tokens=180, new=13)
    assert answer(parts.engine, [whole]).tokens["whole"] == tiny.expected(source, whole)


def test_an_evicted_prefix_is_read_again(tiny: Tiny, layout: LayoutName) -> None:
    source = tiny.source(a=10, b=10)
    parts = tiny.engine(layout, source=source, host_bytes=tiny.bytes_of(10))
    a, b = PrefixKey("default", "a"), PrefixKey("default", "b")
    before = ask("before", "a")
    assert answer(parts.engine, [before]).tokens["before"] == tiny.expected(source, before)
    assert parts.residency.state(a) is not None
    answer(parts.engine, [ask("between", "b")])
    assert parts.residency.state(a) is None
    after = ask("after", "a")
    assert answer(parts.engine, [after]).tokens["after"] == tiny.expected(source, after)
    assert source.loads == [a, b, a]


def test_evicted_keys_and_values_are_not_believed_present(tiny: Tiny, layout: LayoutName) -> None:
    """The stored content changes while the prefix is away: only a real reload can see it."""
    source = tiny.source(a=10, b=10)
    parts = tiny.engine(layout, source=source, host_bytes=tiny.bytes_of(10))
    request = ask("first", "a")
    old = tiny.expected(source, request)
    assert answer(parts.engine, [request]).tokens["first"] == old
    answer(parts.engine, [ask("between", "b")])
    source.add("a", tiny.prefix(10, seed=99))
    again = ask("again", "a", seed=sum(map(ord, "first")))
    new = tiny.expected(source, again)
    assert new != old
    assert answer(parts.engine, [again]).tokens["again"] == new


def test_a_resident_prefix_is_not_read_again(tiny: Tiny, layout: LayoutName) -> None:
    source = tiny.source(a=10, b=10)
    parts = tiny.engine(layout, source=source, host_bytes=tiny.bytes_of(20))
    answer(parts.engine, [ask(f"{n}", "ab"[n % 2]) for n in range(6)])
    answer(parts.engine, [ask("late", "a")])
    assert sorted(key.digest for key in source.loads) == ["a", "b"]


def test_a_displaced_prefix_comes_back_from_host_memory(tiny: Tiny) -> None:
    source = tiny.source(a=10, b=10)
    parts = tiny.engine("slots", source=source, device_bytes=tiny.bytes_of(10))
    for turn in range(6):
        request = ask(f"{turn}", "ab"[turn % 2], seed=turn % 2)
        answers = answer(parts.engine, [request])
        assert answers.tokens[request.id] == tiny.expected(source, request)
        if turn:
            assert parts.residency.state(PrefixKey("default", "ba"[turn % 2])) is State.HOST
    assert len(source.loads) == 2


def test_two_tasks_on_a_device_that_holds_one_prefix(tiny: Tiny) -> None:
    source = tiny.source(a=10, b=10)
    parts = tiny.engine("slots", source=source, device_bytes=tiny.bytes_of(10))
    requests = [ask(f"{n}", "ab"[n % 2]) for n in range(9)]
    answers = answer(parts.engine, requests)
    for request in requests:
        assert answers.tokens[request.id] == tiny.expected(source, request)


def test_a_new_version_while_the_old_one_decodes(tiny: Tiny, layout: LayoutName) -> None:
    source = tiny.source(v1=10)
    parts = tiny.engine(layout, source=source)
    old, answers = ask("old", "v1", new=12), Answers()
    parts.engine.submit(old)
    for _ in range(3):
        answers.step(parts.engine)
    source.add("v2", tiny.prefix(10, seed=7))
    new = ask("new", "v2", new=12)
    parts.engine.submit(new)
    answers.run(parts.engine)
    assert answers.finished["old"].prefixes == ("v1",)
    assert answers.finished["new"].prefixes == ("v2",)
    assert answers.tokens["old"] == tiny.expected(source, old)
    assert answers.tokens["new"] == tiny.expected(source, new)


def test_a_version_that_is_deleted_while_it_decodes(tiny: Tiny, layout: LayoutName) -> None:
    """Its bytes are gone and its memory is wanted; the running row keeps what it was given."""
    source = tiny.source(v1=10, other=10)
    parts = tiny.engine(layout, source=source, host_bytes=tiny.bytes_of(20))
    old, answers = ask("old", "v1", new=12), Answers()
    expected = tiny.expected(source, old)
    parts.engine.submit(old)
    answers.step(parts.engine)
    del source.prefixes[PrefixKey("default", "v1")]
    for number in range(4):
        parts.engine.submit(ask(f"{number}", "other"))
    answers.run(parts.engine)
    assert answers.tokens["old"] == expected


@pytest.mark.parametrize("long", [1, 200])
def test_bare_rows_beside_rows_with_prefixes(tiny: Tiny, layout: LayoutName, long: int) -> None:
    """A shorter row is masked: a zero key would still take its share of the attention."""
    source = tiny.source(long=long, short=3)
    parts = tiny.engine(layout, source=source)
    requests = [ask(f"bare{n}", tokens=1 + 3 * n, new=20) for n in range(4)]
    requests += [ask(f"long{n}", "long", tokens=40, new=20) for n in range(4)]
    requests += [ask("short", "short", new=20)]
    answers = answer(parts.engine, requests)
    for request in requests:
        assert answers.tokens[request.id] == tiny.expected(source, request), request.id
    bare = answers.finished["bare0"]
    assert (bare.prefixes, bare.prefix_tokens) == ((), ())


def test_two_prefixes_act_as_one_long_one(tiny: Tiny, layout: LayoutName) -> None:
    source = tiny.source(a=10, b=3, c=1)
    parts = tiny.engine(layout, source=source)
    chains = [("a", "b"), ("b", "a"), ("a", "a"), ("a", "b", "c", "a"), ("c",)]
    requests = [ask("-".join(chain), *chain, seed=1) for chain in chains]
    answers = answer(parts.engine, requests)
    for request in requests:
        assert answers.tokens[request.id] == tiny.expected(source, request), request.id
        assert answers.finished[request.id].prefixes == request.prefixes
    assert answers.finished["a-b"].prefix_tokens == (10, 3)


def test_tenants_never_share_a_digest(tiny: Tiny, layout: LayoutName) -> None:
    source = DictSource()
    source.add("d", tiny.prefix(5, seed=1), tenant="one")
    source.add("d", tiny.prefix(5, seed=2), tenant="two")
    parts = tiny.engine(layout, source=source)
    requests = [ask(tenant, "d", seed=0, tenant=tenant) for tenant in ("one", "two", "three")]
    answers = answer(parts.engine, requests)
    assert answers.tokens["one"] == tiny.expected(source, requests[0])
    assert answers.tokens["two"] == tiny.expected(source, requests[1])
    error = answers.finished["three"].error
    assert error is not None
    assert error.code == "prefix_unavailable"


def test_position_offset_is_the_prefix_s_own(tiny: Tiny, layout: LayoutName) -> None:
    """The same content behind two positions is two prefixes, with two answers."""
    source = DictSource()
    kv = tiny.prefix(10, seed=1)
    source.add("shifted", kv)
    source.add("unshifted", kv, offset=0)
    parts = tiny.engine(layout, source=source)
    requests = [ask("shifted", "shifted", seed=0), ask("unshifted", "unshifted", seed=0)]
    answers = answer(parts.engine, requests)
    assert answers.tokens["shifted"] == tiny.expected(source, requests[0])
    assert answers.tokens["unshifted"] != answers.tokens["shifted"]


def test_a_prefix_is_never_written_to(tiny: Tiny, layout: LayoutName) -> None:
    source = tiny.source(a=10)
    kept = source.prefixes[PrefixKey("default", "a")].sites["decoder"].clone()
    parts = tiny.engine(layout, source=source, tokens=5)
    answer(parts.engine, [ask(f"{n}", "a", tokens=1 + n) for n in range(10)])
    assert torch.equal(source.prefixes[PrefixKey("default", "a")].sites["decoder"], kept)
    late = ask("late", "a")
    assert answer(parts.engine, [late]).tokens["late"] == tiny.expected(source, late)


def test_a_prefix_without_tokens_changes_nothing(tiny: Tiny, layout: LayoutName) -> None:
    source = tiny.source(a=10)
    source.add("none", tiny.prefix(0))
    parts = tiny.engine(layout, source=source)
    chains = [("none",), ("none", "a"), ("a", "none"), ("none", "none")]
    requests = [ask("-".join(chain), *chain, seed=4) for chain in chains]
    answers = answer(parts.engine, requests)
    for request in requests:
        bare = ask("bare", *["a"] * ("a" in request.prefixes), seed=4)
        assert answers.tokens[request.id] == tiny.expected(source, bare), request.id


def test_memory_that_was_never_written_is_not_read(tiny: Tiny, layout: LayoutName) -> None:
    """As the server runs it: nothing is filled with NaN, and old content stays where it was."""
    source = tiny.source(a=10, b=40)
    loaded = tiny.loaded
    for poison in (False, True):
        memory = make_memory(
            layout, loaded.specs, 512, torch.float32, torch.device("cpu"), poison=poison
        )
        loader = PrefixLoader(source, InlineExecutor(), lambda: None)
        residency = Residency(memory, loader, host_bytes=1 << 20, device_bytes=1 << 20)
        engine = assemble(loaded, memory, residency, Limits(8, 16, loaded.context))
        requests = [ask(f"{n}", *(["a"], ["b"], [])[n % 3], tokens=1 + n) for n in range(20)]
        answers = answer(engine, requests)
        for request in requests:
            assert answers.tokens[request.id] == tiny.expected(source, request), request.id
