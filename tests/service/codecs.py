"""Tokenizers of every kind there is, small enough to draw tokens from."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from service.fakes import INFO
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from prefixmux_server.engine.model_info import TokenizerInfo
from prefixmux_server.service.text.text import TextCodec

WORDS = ("▁", "▁the", "the", "▁cat", "s", ".", "▁.", "é", "▁日", "本", "!", "a", "▁a", "��")
SPECIAL = ("<unk>", "</s>")
PLAIN_ADDED = "<note>"


def bytes_of(first: int = 0) -> list[str]:
    return [f"<0x{byte:02X}>" for byte in range(first, 256)]


def codec(made: Tokenizer) -> TextCodec:
    made.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    made.add_tokens([PLAIN_ADDED])
    return TextCodec(TokenizerInfo(made.to_str(), ()))


def vocabulary(codec: TextCodec) -> int:
    """The number of ids; those behind are silent, as are those of no token."""
    return next(id for id in range(1000) if all(codec.is_silent(id + more) for more in range(3)))


def byte_level() -> TextCodec:
    """GPT-2, Llama 3, Qwen: any token may be a part of a character."""
    return TextCodec(INFO)


def unigram(pieces: list[str]) -> Tokenizer:
    made = Tokenizer(
        models.Unigram(
            [(piece, -1.0) for piece in (*SPECIAL, *pieces)], unk_id=0, byte_fallback=True
        )
    )
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    return made


def llama() -> TextCodec:
    """Byte fallback, and the first space of the text is dropped."""
    made = Tokenizer(
        models.BPE(
            vocab={piece: id for id, piece in enumerate((*SPECIAL, *bytes_of(), *WORDS))},
            merges=[],
            byte_fallback=True,
        )
    )
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return codec(made)


def gemma() -> TextCodec:
    """As `llama`, but every space is kept."""
    made = unigram([*bytes_of(), *WORDS])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return codec(made)


def t5() -> TextCodec:
    made = unigram(list(WORDS))
    made.decoder = decoders.Metaspace()
    return codec(made)


def bert() -> TextCodec:
    pieces = (*SPECIAL, "the", "##s", "cat", "##é", ".", "'", "s", "日", "##本", "n't", "do")
    made = Tokenizer(
        models.WordPiece({piece: id for id, piece in enumerate(pieces)}, unk_token="<unk>")
    )
    made.decoder = decoders.WordPiece(cleanup=True)
    return codec(made)


def openai_gpt() -> TextCodec:
    pieces = (*SPECIAL, "the</w>", "cat", "s</w>", ".</w>", "é", "a</w>", "日</w>")
    made = Tokenizer(models.BPE({piece: id for id, piece in enumerate(pieces)}, []))
    made.decoder = decoders.BPEDecoder("</w>")
    return codec(made)


def undecoded() -> TextCodec:
    """Words with a space between any two."""
    pieces = (*SPECIAL, *WORDS)
    words = {piece: id for id, piece in enumerate(pieces)}
    return codec(Tokenizer(models.WordLevel(words, unk_token="<unk>")))


def rewriting() -> TextCodec:
    """One whose last step sees the whole text: what follows changes what was."""
    made = unigram(list(WORDS))
    made.decoder = decoders.Sequence(
        [decoders.Fuse(), decoders.Replace("the▁", "THE "), decoders.Replace("▁", " ")]
    )
    return codec(made)


CODECS: Mapping[str, Callable[[], TextCodec]] = {
    made.__name__: made
    for made in (byte_level, llama, gemma, t5, bert, openai_gpt, undecoded, rewriting)
}
