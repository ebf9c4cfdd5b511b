"""Patterns of topics: RE2, in linear time, with an error in words for what it does not have."""

from __future__ import annotations

import time

import pytest

from kraft.coordinators.groups.patterns import PATTERN_LENGTH_MAX, topic_pattern, topics_of_pattern

NAMES = dict.fromkeys(("flights-2", "flights-1", "rides", "__consumer_offsets", "Rides"))


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("flights-.*", ("flights-1", "flights-2")),
        ("flights", ()),
        (".*", ("Rides", "flights-1", "flights-2", "rides")),
        ("(?i)rides|x", ("Rides", "rides")),
        (r"\w+-[0-9]", ("flights-1", "flights-2")),
        ("__.*", ()),
        ("", ()),
    ],
)
def test_the_whole_name_matches_and_internal_topics_never(pattern: str, found: tuple[str, ...]) -> None:
    assert topics_of_pattern(pattern, NAMES) == found


@pytest.mark.parametrize(
    "pattern",
    ["(", "(?=a)b", "(?<!a)b", r"(a)\1", "a++", "a{1001}", "x" * (PATTERN_LENGTH_MAX + 1), r"\p{L}{900}", "\ud800"],
)
def test_what_re2_does_not_take_is_refused_in_words_and_matches_nothing(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"RE2 syntax|longer than|codec"):
        topic_pattern(pattern)
    assert topics_of_pattern(pattern, NAMES) == ()


@pytest.mark.parametrize(
    "pattern", ["(a+)+b", "(a|a)*b", "(a?){40}a{40}b", "(.*a){100}", "([ab]*a[ab]{300})c", "(a*)*" * 100 + "b"]
)
def test_time_grows_with_the_name_and_not_with_a_power_of_it(pattern: str) -> None:
    """Backtracking engines need 2^249 steps for the first of these. A ratio, for the machine may be busy."""

    def took(length: int) -> float:
        name, best = "a" * length, float("inf")
        for _ in range(5):
            began = time.process_time()
            for turn in range(200):
                topics_of_pattern(pattern, {name: turn})
            best = min(best, time.process_time() - began)
        return best

    assert took(240) < 40 * took(24) + 0.05


def test_topics_that_come_later_are_found() -> None:
    assert topics_of_pattern("a.*", {"a1": 1}) == ("a1",)
    assert topics_of_pattern("a.*", {"a1": 1, "a2": 2}) == ("a1", "a2")
