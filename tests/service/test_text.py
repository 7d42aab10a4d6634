from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from service.fakes import EOS, EOS_TEXT, INFO, ids
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from prefixmux_server.engine.model_info import TokenizerInfo
from prefixmux_server.service.text.detokenizer import Detokenizer
from prefixmux_server.service.text.text import TextCodec

CODEC = TextCodec(INFO)


def pieces(codec: TextCodec, token_ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(codec)
    return [detokenizer.push(id) for id in token_ids]


def word_codec() -> TextCodec:
    """Like SentencePiece: a decoder that drops the space before the first word."""
    words = {"[UNK]": 0, "▁one": 1, "▁two": 2, "s": 3, "<bos>": 4}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.add_special_tokens(["<bos>"])
    made.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair=None, special_tokens=[("<bos>", 4)]
    )
    made.enable_truncation(1)
    made.enable_padding(length=9)
    return TextCodec(TokenizerInfo(made.to_str(), (4,)))


def test_special_tokens_are_added_and_nothing_is_cut_or_padded() -> None:
    assert word_codec().encode("one two") == (4, 1, 2)


def test_decoding_skips_special_tokens() -> None:
    assert CODEC.decode([*ids("ab"), EOS]) == "ab"


@given(st.text() | st.sampled_from(["ll" * 9, EOS_TEXT * 3, f"ef{EOS_TEXT}€"]))
def test_a_text_has_no_fewer_tokens_than_its_bytes_say(text: str) -> None:
    assert CODEC.least_tokens(text) <= len(CODEC.encode(text))
    assert CODEC.least_tokens(text) >= len(text) // len(EOS_TEXT)


def test_tokenizers_that_may_swallow_text_say_nothing() -> None:
    """An unknown word is one token, however long; so is what stands around some added ones."""
    assert word_codec().least_tokens("x" * 1000) == 0
    greedy = Tokenizer.from_str(INFO.json)
    greedy.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    swallowing = TextCodec(TokenizerInfo(greedy.to_str(), ()))
    assert len(swallowing.encode(" " * 1000 + "<mask>")) < 1000 // len("<mask>")
    assert swallowing.least_tokens(" " * 1000 + "<mask>") == 0


def test_text_that_looks_special_is_special() -> None:
    assert CODEC.encode(f"a{EOS_TEXT}")[-1] == EOS


def test_a_character_comes_out_whole() -> None:
    assert [piece for piece in pieces(CODEC, ids("a€😀b")) if piece] == ["a", "€", "😀", "b"]


def test_spaces_between_words_survive_the_window() -> None:
    assert pieces(word_codec(), [4, 1, 4, 2, 3, 1]) == ["", "one", "", " two", "s", " one"]


def test_bytes_that_are_no_character_come_out_at_last() -> None:
    broken = ids("€")[:1] * 9
    joined = "".join(pieces(CODEC, broken))
    assert joined and CODEC.decode(broken).startswith(joined)


@given(st.text(), st.text())
def test_pieces_join_to_the_whole_text(before: str, after: str) -> None:
    token_ids = [*ids(before), EOS, *ids(after), *ids("!")]
    assert "".join(pieces(CODEC, token_ids)) == CODEC.decode(token_ids)
