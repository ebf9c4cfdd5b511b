"""Words that are hard to read become fewer."""

from __future__ import annotations

import re
from typing import Final

import pytest

from tests.architecture import words

TESTS: Final = words.ROOT / "tests"
NAME: Final = re.compile(r"^\s*(?:async )?def (test_\w+)", re.MULTILINE)
NAME_MAX: Final = 75
"""Characters in the name of a test: a longer one is hard to search for."""


def test_hard_words_become_fewer() -> None:
    found = words.found()
    more = [
        f"{pattern}: {found[pattern]}, {most} at most; write instead: {words.INSTEAD[pattern]}"
        for pattern, most in words.FOUND_MAX.items()
        if found[pattern] > most
    ]
    assert not more, "\n".join(more)


def test_names_of_tests_are_short() -> None:
    names = {name for path in TESTS.rglob("test_*.py") for name in NAME.findall(path.read_text(encoding="utf-8"))}
    assert len(names) > 1_000
    assert not [name for name in names if len(name) > NAME_MAX]


def test_new_hard_word_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [*words._texts(), "Whoever is told of it."]
    before = words.found()
    monkeypatch.setattr(words, "_texts", lambda: iter(texts))
    after = words.found()
    assert {pattern: after[pattern] - before[pattern] for pattern in after if after[pattern] != before[pattern]} == {
        r"\btold\b": 1,
        r"\bwhoever\b": 1,
    }
