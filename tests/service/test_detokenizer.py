from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from service.codecs import CODECS, byte_level, llama, rewriting, vocabulary
from service.fakes import INFO, ids

from prefixmux_server.service.text.detokenizer import WINDOW, Detokenizer
from prefixmux_server.service.text.text import TextCodec

BUILT = {name: build() for name, build in CODECS.items()}
# Of the longest of the tokenizers; each takes what is in its own table, and one id that is not.
TOKENS = st.lists(st.integers(0, 290), max_size=60)


def pieces(codec: TextCodec, token_ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(codec)
    return [*(detokenizer.push(id) for id in token_ids), detokenizer.end()]


@pytest.mark.parametrize("name", CODECS)
@given(data=st.data())
def test_the_pieces_are_the_text_and_never_more(name: str, data: st.DataObject) -> None:
    codec = BUILT[name]
    size = vocabulary(codec)
    token_ids = [id % (size + 1) for id in data.draw(TOKENS)]
    whole, out = codec.decode(token_ids), ""
    detokenizer = Detokenizer(codec)
    for token_id in token_ids:
        out += detokenizer.push(token_id)
        assert whole.startswith(out)
    assert out + detokenizer.end() == whole


@pytest.mark.parametrize("name", CODECS)
@given(runs=st.lists(st.tuples(st.integers(0, 290), st.integers(1, 3 * WINDOW)), max_size=4))
def test_tokens_that_repeat_for_long(name: str, runs: list[tuple[int, int]]) -> None:
    codec = BUILT[name]
    size = vocabulary(codec)
    token_ids = [id % size for id, count in runs for _ in range(count)]
    assert "".join(pieces(codec, token_ids)) == codec.decode(token_ids)


@given(st.binary(max_size=50))
def test_bytes_that_are_no_text_are_shown_as_decoding_shows_them(content: bytes) -> None:
    for codec, first in ((byte_level(), None), (llama(), 2)):
        found = [first + byte for byte in content] if first else list(content)
        assert "".join(pieces(codec, found)) == codec.decode(found)


def test_text_comes_with_the_token_that_completes_it() -> None:
    assert pieces(byte_level(), ids("a€b")) == ["a", "", "", "€", "b", ""]


def test_a_run_of_bytes_is_text_only_once_it_is_over() -> None:
    codec = llama()
    letter = codec.plain("a")[-1]
    run = [2 + byte for byte in "é".encode()]
    detokenizer = Detokenizer(codec)
    assert [detokenizer.push(id) for id in run] == ["", ""]
    assert (detokenizer.holding, detokenizer.ahead()) == (True, "é")
    assert detokenizer.push(letter) == "éa"
    assert (detokenizer.holding, detokenizer.ahead()) == (False, "")
    assert pieces(codec, [*run, 2 + 0xFF, letter]) == ["", "", "", "\ufffd\ufffd\ufffda", ""]


def test_nothing_is_sure_of_a_decoder_that_rewrites() -> None:
    codec = rewriting()
    token_ids = list(range(2, 9))
    *out, last = pieces(codec, token_ids)
    assert (set(out), last) == ({""}, codec.decode(token_ids))


def test_only_a_short_window_is_decoded() -> None:
    seen: list[int] = []

    class Counting(TextCodec):
        def decode(self, token_ids: object) -> str:
            assert isinstance(token_ids, list)
            seen.append(len(token_ids))
            return super().decode(token_ids)

    pieces(Counting(INFO), [0xFF] * 500 + ids("hello " * 50))
    assert max(seen) <= WINDOW + 1
