"""Routes: a name to which records are produced, and the rule by which each goes on to topics. Pure.

A binding has a key and a topic. A record has a routing key, and goes to the topics of all bindings that match it, to
each once: with `direct` those whose key is equal, with `fanout` all, and with `pattern` those whose key, a pattern of
words with dots between, matches. `*` is exactly one word, `#` any number of words, also none; the empty text has no
words. These are the words of AMQP's topic exchanges (AMQP 0-9-1, 3.1.3.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Final, NamedTuple

from kraft.protocol.errors import InvalidRequest

KEY_LENGTH_MAX: Final = 255
"""Characters of a routing key, and of a binding's key; AMQP's limit of a routing key, in bytes there."""
ONE_WORD, ANY_WORDS = "*", "#"


class RouteKind(StrEnum):
    """How the bindings of a route match."""

    DIRECT = "direct"
    PATTERN = "pattern"
    FANOUT = "fanout"


class Binding(NamedTuple):
    """Records with a key that matches go to the topic."""

    key: str
    """Empty in a fan-out."""
    topic: str


class Pattern:
    """A pattern, ready to be matched: as many steps as the key has words, whatever the pattern is."""

    __slots__ = ("_any_words", "_end", "_one_word", "_words")

    def __init__(self, text: str) -> None:
        words: list[str] = []
        for word in words_of(text):
            if not (word == ANY_WORDS and words[-1:] == [ANY_WORDS]):
                words.append(word)
        self._words: dict[str, int] = {}
        self._one_word = self._any_words = 0
        self._end = 1 << len(words)
        for at, word in enumerate(words):
            if word == ONE_WORD:
                self._one_word |= 1 << at
            elif word == ANY_WORDS:
                self._any_words |= 1 << at
            else:
                self._words[word] = self._words.get(word, 0) | 1 << at

    def matches(self, words: Iterable[str]) -> bool:
        """Bit n of `states`: the words so far match the first n words of the pattern."""
        any_words = self._any_words
        states = 1 | (1 & any_words) << 1
        for word in words:
            taken = states & (self._words.get(word, 0) | self._one_word)
            states = taken << 1 | states & any_words
            if not states:
                return False
            states |= (states & any_words) << 1
        return bool(states & self._end)


def words_of(text: str) -> Sequence[str]:
    """The words of a routing key or of a pattern."""
    return text.split(".") if text else ()


@dataclass(frozen=True, kw_only=True)
class RouteImage:
    """A route as the metadata log has it."""

    name: str
    kind: RouteKind
    bindings: frozenset[Binding] = frozenset()

    def topics_of(self, key: str) -> Sequence[str]:
        """The topics to which a record with this routing key goes, by name; empty: it matches no binding."""
        match self.kind:
            case RouteKind.DIRECT:
                return self._by_key.get(key, ())
            case RouteKind.FANOUT:
                return self.topics
            case RouteKind.PATTERN:
                words = words_of(key)
                matching = (topics for pattern, topics in self._patterns if pattern.matches(words))
                return sorted({topic for topics in matching for topic in topics})

    @cached_property
    def topics(self) -> Sequence[str]:
        """All topics of the route, by name."""
        return sorted({binding.topic for binding in self.bindings})

    @cached_property
    def _by_key(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for key, topic in sorted(self.bindings):
            found.setdefault(key, []).append(topic)
        return found

    @cached_property
    def _patterns(self) -> list[tuple[Pattern, list[str]]]:
        return [(Pattern(key), topics) for key, topics in self._by_key.items()]


def check_routing_key(key: str) -> None:
    """Check the routing key of a record. Raises InvalidRequest 42."""
    if len(key) > KEY_LENGTH_MAX:
        raise InvalidRequest(f"a routing key has at most {KEY_LENGTH_MAX} characters, this one {len(key)}")
    if not _is_text(key):
        raise InvalidRequest("a routing key is text, and this one has half of a surrogate pair")


def check_binding(kind: RouteKind, binding: Binding) -> None:
    """Check the key of a binding: what can match nothing is refused. Raises InvalidRequest 42."""
    key = binding.key
    if len(key) > KEY_LENGTH_MAX:
        raise InvalidRequest(
            f"the key of a binding has at most {KEY_LENGTH_MAX} characters, as a routing key has; this one has "
            f"{len(key)} and would match nothing"
        )
    if not _is_text(key):
        raise InvalidRequest("the key of a binding is text, and this one has half of a surrogate pair")
    if kind is RouteKind.FANOUT and key:
        raise InvalidRequest(f"a fanout route sends each record to all of its topics: bind without the key {key!r}")
    if kind is RouteKind.PATTERN:
        for word in words_of(key):
            if word not in (ONE_WORD, ANY_WORDS) and (ONE_WORD in word or ANY_WORDS in word):
                raise InvalidRequest(
                    f"pattern {key!r}: {ONE_WORD} stands for one whole word and {ANY_WORDS} for any number of them, so "
                    f"they stand alone between dots, and {word!r} would match nothing"
                )


def _is_text(key: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in key)
