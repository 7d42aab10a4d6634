"""What an encoder-decoder model cannot run: nothing to begin with, or more than its positions."""

from __future__ import annotations

from engine.twin import Twin, check_answers
from support.checks import error_code
from support.engines import answer

from prefixmux_server.memory.select import LayoutName


def test_nothing_to_begin_with(seq2seq: Twin, layout: LayoutName) -> None:
    parts = seq2seq.engine(layout)
    requests = [seq2seq.ask("no-start", more=0), seq2seq.ask("no-input", "text", tokens=0)]
    fine = seq2seq.ask("fine")
    answers = answer(parts.engine, [*requests, fine])
    assert [error_code(answers, r.id) for r in requests] == ["invalid_request"] * 2
    check_answers(seq2seq, answers, [fine])


def test_more_than_the_encoder_has_positions(seq2seq: Twin, layout: LayoutName) -> None:
    """Virtual tokens of the encoder take some; keys and values take none."""
    parts = seq2seq.engine(layout)
    fits = [
        seq2seq.ask("bare", tokens=128, new=2),
        seq2seq.ask("virtual", "embedded", "text", tokens=115, new=2),
        seq2seq.ask("prefix", "encoder", "cross", tokens=128, new=2),
    ]
    more = [
        seq2seq.ask("bare+", tokens=129, new=2),
        seq2seq.ask("virtual+", "embedded", "text", tokens=116, new=2),
    ]
    answers = answer(parts.engine, [*fits, *more])
    check_answers(seq2seq, answers, fits)
    assert [error_code(answers, r.id) for r in more] == ["prompt_too_long"] * 2


def test_more_than_the_decoder_has_positions(seq2seq: Twin, layout: LayoutName) -> None:
    parts = seq2seq.engine(layout)
    fits = seq2seq.ask("fits", "five", more=118, new=6)
    more = seq2seq.ask("more", "five", more=119, new=6)
    answers = answer(parts.engine, [fits, more])
    check_answers(seq2seq, answers, [fits])
    assert error_code(answers, "more") == "prompt_too_long"
