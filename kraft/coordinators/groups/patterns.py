"""Subscriptions by pattern: RE2 syntax, as Kafka's brokers take them (KIP-848). Pure.

RE2 finds a match in time that grows with the name, whatever the pattern; a backtracking engine can be made to try for
ever, here and at every coordinator that follows. What it leaves out for that, and Java has: lookahead, lookbehind,
backreferences, possessive quantifiers, repetitions above 1,000.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import re2

from metadata.internal_topics import INTERNAL_TOPICS

PATTERN_LENGTH_MAX = 1_000
PATTERN_MEMORY_MAX = 65_536
"""Memory of a compiled pattern and of its cache of states, in bytes; with it one name takes 1 ms at most."""
PATTERNS_MAX = 256
"""Compiled patterns that are kept, each with the topics that it found last."""


def compiled(text: str) -> re2._Regexp[str]:
    """Compile a pattern. Raises ValueError that names what is wrong with it."""
    if len(text) > PATTERN_LENGTH_MAX:
        raise ValueError(f"longer than {PATTERN_LENGTH_MAX} characters")
    options = re2.Options()
    options.max_mem = PATTERN_MEMORY_MAX
    options.never_capture = True
    options.log_errors = False
    try:
        return re2.compile(text, options)
    except re2.error as error:
        reason = error.args[0] if error.args else b""
        said = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(f"{said} (RE2 syntax)") from None


class TopicPattern:
    """A compiled pattern. Members ask for the same topics again and again, so what it found is kept."""

    def __init__(self, text: str) -> None:
        """Compile a pattern. Raises ValueError that names what is wrong with it."""
        self._compiled = compiled(text)
        self._names: Mapping[str, object] | None = None
        self._found: tuple[str, ...] = ()

    def topics(self, names: Mapping[str, object]) -> tuple[str, ...]:
        """The names that match as a whole, sorted; internal topics are never among them."""
        if self._names is not names:
            matching = [name for name in names if name not in INTERNAL_TOPICS and self._compiled.fullmatch(name)]
            self._names, self._found = names, tuple(sorted(matching))
        return self._found


@lru_cache(PATTERNS_MAX)
def topic_pattern(text: str) -> TopicPattern:
    """Raises ValueError."""
    return TopicPattern(text)


def topics_of_pattern(text: str, names: Mapping[str, object]) -> tuple[str, ...]:
    """None match a pattern that does not compile: an earlier version may have stored one with lookahead."""
    try:
        return topic_pattern(text).topics(names)
    except ValueError:
        return ()
