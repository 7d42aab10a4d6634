"""The bytes of tokens, for both ways in which tokenizers write them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from service.fakes import EOS, EOS_TEXT, INFO, ids
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from prefixmux_server.engine.model_info import TokenizerInfo
from prefixmux_server.service.text.spelling import Place, Spelling
from prefixmux_server.service.text.text import TextCodec

texts = st.text(st.characters(codec="utf-8"), max_size=12)


def fallback_codec() -> TextCodec:
    """Like Llama's: what is no word is written byte by byte."""
    words = ["<unk>", "\u2581", "one", "\u2581one", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = [(word, -2.0 if word == "\u2581one" else -5.0) for word in words]
    made = Tokenizer(models.Unigram(vocabulary, 0, byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    made.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return TextCodec(TokenizerInfo(made.to_str(), ()))


LEVEL, FALLBACK = TextCodec(INFO), fallback_codec()


@given(text=texts)
def test_tokens_spell_their_text(text: str) -> None:
    spelling = Spelling(LEVEL)
    assert b"".join(map(spelling.of, LEVEL.plain(text))) == text.encode()


@given(text=texts.filter(lambda text: "\u2581" not in text))
def test_bytes_that_stand_for_what_is_no_word(text: str) -> None:
    spelling = Spelling(FALLBACK)
    assert b"".join(map(spelling.of, FALLBACK.plain(text))) == text.encode()


def test_words_have_their_spaces() -> None:
    spelling, token_ids = Spelling(FALLBACK), FALLBACK.plain("one one\u20ac")
    assert [spelling.of(id) for id in token_ids] == [b"one", b" one", b"\xe2", b"\x82", b"\xac"]


def test_special_tokens_have_a_name_and_add_nothing() -> None:
    spelling = Spelling(LEVEL)
    assert (spelling.of(EOS), spelling.adds(EOS)) == (EOS_TEXT.encode(), b"")
    assert spelling.adds(ids("a")[0]) == b"a"


@given(text=texts)
def test_places_are_those_of_the_text(text: str) -> None:
    """Each character begins where its first byte's token does."""
    place = Place(Spelling(LEVEL))
    token_ids = LEVEL.plain(text)
    places = [place.step(token_id) for token_id in token_ids]
    read = [len(LEVEL.decode(token_ids[:n]).replace("\ufffd", "")) for n in range(len(token_ids))]
    if "\ufffd" not in text:
        assert places == read
