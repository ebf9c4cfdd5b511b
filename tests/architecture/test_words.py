"""Words that are hard to read become fewer."""

from __future__ import annotations

import pytest

from tests.architecture import words


def test_hard_words_become_fewer() -> None:
    found = words.found()
    more = [
        f"{pattern}: {found[pattern]}, {most} at most; write instead: {words.INSTEAD[pattern]}"
        for pattern, most in words.FOUND_MAX.items()
        if found[pattern] > most
    ]
    assert not more, "\n".join(more)


def test_new_hard_word_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [*words._texts(), "Whoever is told of it."]
    before = words.found()
    monkeypatch.setattr(words, "_texts", lambda: iter(texts))
    after = words.found()
    assert {pattern: after[pattern] - before[pattern] for pattern in after if after[pattern] != before[pattern]} == {
        r"\btold\b": 1,
        r"\bwhoever\b": 1,
    }
