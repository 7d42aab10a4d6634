from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from prefixmux_server.service.stops import StopFinder, StopMatch

LETTERS = st.text(alphabet="ab", max_size=4)
STOPS = st.lists(st.text(alphabet="ab", min_size=1, max_size=3), min_size=1, max_size=3)


def first_match(pieces: list[str], stops: list[str]) -> tuple[StopMatch, int] | None:
    finder = StopFinder(stops)
    for count, piece in enumerate(pieces):
        if match := finder.push(piece):
            return match, count
    return None


def test_a_stop_string_is_found_across_pieces() -> None:
    assert first_match(["one E", "N", "D two"], ["END"]) == (StopMatch("one ", "END"), 2)


def test_of_two_in_a_piece_the_earlier_wins_then_the_first_named() -> None:
    assert first_match(["x;y."], [".", ";"]) == (StopMatch("x", ";"), 0)
    assert first_match(["abc"], ["ab", "abc"]) == (StopMatch("", "ab"), 0)


def test_one_that_ended_before_it_was_honoured_is_text() -> None:
    finder = StopFinder(["."])
    assert finder.push("a.", honoured=False) is None
    assert finder.push("b") is None
    assert finder.push(".") == StopMatch("a.b", ".")


def test_one_that_began_before_it_was_honoured_counts_when_it_ends_later() -> None:
    finder = StopFinder(["END"])
    assert finder.push("xEN", honoured=False) is None
    assert finder.push("D") == StopMatch("x", "END")


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
    match, count = found
    text = "".join(pieces)
    assert count == ends[0]
    assert text.startswith(match.text + match.stop)
    assert not any(stop in match.text for stop in stops)
