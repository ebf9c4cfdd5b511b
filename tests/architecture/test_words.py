"""Words that are hard to read become fewer."""

from __future__ import annotations

import re
from functools import cache
from typing import Final

import pytest

from tests.architecture import words

TESTS: Final = words.ROOT / "tests"
NAME: Final = re.compile(r"^\s*(?:async )?def (test_\w+)", re.MULTILINE)
NAME_MAX: Final = 75
"""Characters in the name of a test: a longer one is hard to search for."""
PRODUCT: Final = ("kraft", "metadata", "replication", "bench")
NOUNS: Final = frozenset({"copying", "encoding", "grouping", "importing", "routing"})
"""Names of modules that end in "ing" and may: a module is named by what it has, not by what happens in it."""
HARD: Final = re.compile(r"_(?:told|tells|says|whoever|anew)(?:_|$)")


def test_hard_words_become_fewer() -> None:
    found = words.found()
    more = [
        f"{pattern}: {found[pattern]}, {most} at most; write instead: {words.INSTEAD[pattern]}"
        for pattern, most in words.FOUND_MAX.items()
        if found[pattern] > most
    ]
    assert not more, "\n".join(more)


def test_names_of_tests_are_short() -> None:
    assert len(names()) > 1_000
    assert not [name for name in names() if len(name) > NAME_MAX]


def test_names_of_tests_have_no_hard_words() -> None:
    assert not [name for name in names() if HARD.search(name)]
    assert HARD.search("test_whoever_comes_is_told")


def test_names_of_modules_are_nouns() -> None:
    gerunds = {path.stem for each in PRODUCT for path in (words.ROOT / each).rglob("*ing.py")}
    bare = {name for name in gerunds if "_" not in name}
    assert bare <= NOUNS, f"{bare - NOUNS}: what is there is a noun (an append queue, not waiting)"


@cache
def names() -> frozenset[str]:
    """The names of all tests."""
    return frozenset(
        name for path in TESTS.rglob("test_*.py") for name in NAME.findall(path.read_text(encoding="utf-8"))
    )


def test_new_hard_word_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [*words._texts(), "Whoever is told of it."]
    before = words.found()
    monkeypatch.setattr(words, "_texts", lambda: iter(texts))
    after = words.found()
    assert {pattern: after[pattern] - before[pattern] for pattern in after if after[pattern] != before[pattern]} == {
        r"(?<!\.)\btold\b": 1,
        r"\bwhoever\b": 1,
    }
