from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from prefixmux_server.service.text.stops import StopFinder

LETTERS = st.text(alphabet="ab", max_size=4)
STOPS = st.lists(st.text(alphabet="ab", min_size=1, max_size=3), min_size=1, max_size=3)


Found = tuple[str, str, int]


def first_match(pieces: list[str], stops: list[str]) -> Found | None:
    """The text before it, the stop string and the piece that completes it."""
    finder, text = StopFinder(stops), ""
    for count, piece in enumerate(pieces):
        text += finder.push(piece)
        if finder.found is not None:
            return text, finder.found, count
    return None


def test_a_stop_string_is_found_across_pieces() -> None:
    assert first_match(["one E", "N", "D two"], ["END"]) == ("one ", "END", 2)


def test_of_two_in_a_piece_the_earlier_wins_then_the_first_named() -> None:
    assert first_match(["x;y."], [".", ";"]) == ("x", ";", 0)
    assert first_match(["abc"], ["ab", "abc"]) == ("", "ab", 0)


def test_one_that_ended_before_it_was_honoured_is_text() -> None:
    finder = StopFinder(["."])
    assert finder.push("a.", passed=2) == "a."
    assert finder.push("b") == "b"
    assert finder.push(".") == ""
    assert finder.found == "."


def test_one_that_began_before_it_was_honoured_counts_when_it_ends_later() -> None:
    finder = StopFinder(["END"])
    assert finder.push("xEN", passed=3) == "x"
    assert finder.push("D") == ""
    assert finder.found == "END"


def test_one_that_ended_before_is_no_beginning_of_what_comes() -> None:
    finder = StopFinder(["EN", "END"])
    assert finder.push("EN", passed=2) == ""
    assert finder.push("x") == "ENx"
    assert finder.found is None


def test_what_may_be_a_beginning_is_held_back_and_no_more() -> None:
    finder = StopFinder(["END", "NO"])
    assert [finder.push(piece) for piece in ("aE", "N", "EN", "x", "N")] == [
        "a",
        "",
        "EN",
        "ENx",
        "",
    ]
    assert finder.holding
    assert (finder.end(), finder.holding) == ("N", False)


@given(st.lists(LETTERS), STOPS)
def test_nothing_of_a_stop_string_comes_out_and_all_else_does(
    pieces: list[str], stops: list[str]
) -> None:
    finder, out, text = StopFinder(stops), "", ""
    for piece in pieces:
        text += piece
        out += finder.push(piece)
        assert text.startswith(out)
        assert not any(stop in out for stop in stops)
        if finder.found is not None:
            assert text.startswith(out + finder.found)
            assert not finder.holding
            return
        held = text[len(out) :]
        assert finder.holding == bool(held)
        assert not held or any(stop.startswith(held) and stop != held for stop in stops)
    assert out + finder.end() == text


@given(st.lists(LETTERS), STOPS)
def test_found_with_the_first_piece_that_completes_one(pieces: list[str], stops: list[str]) -> None:
    ends = [
        count
        for count in range(len(pieces))
        if any(stop in "".join(pieces[: count + 1]) for stop in stops)
    ]
    found = first_match(pieces, stops)
    assert (found is None) == (not ends)
    assume(found is not None)
    assert found is not None
    before, stop, count = found
    text = "".join(pieces)
    assert count == ends[0]
    assert text.startswith(before + stop)
    assert not any(other in before for other in stops)
