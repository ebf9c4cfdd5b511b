"""The keys of `kraft top`, one after the other, also those that arrive together."""

from __future__ import annotations

from typing import Final

NAMES: Final = {
    "\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down", "\r": "enter", "\n": "enter",
    "\x1b": "escape", "\x7f": "backspace", "\b": "backspace",
}  # fmt: skip
"""What a terminal sends for a key that is no character."""


def keys_in(text: str) -> list[str]:
    """The keys of what was read: a character, or a name of `NAMES`. Other sequences are no key."""
    found, at = list[str](), 0
    while at < len(text):
        size = _size(text, at)
        key, at = text[at : at + size], at + size
        if size == 1 or key in NAMES:
            found.append(NAMES.get(key, key))
    return found


def _size(text: str, at: int) -> int:
    """The characters of the key that begins there. An escape alone is the escape key."""
    if text[at] != "\x1b" or text[at + 1 : at + 2] not in ("[", "O"):
        return 1
    end = at + 2
    while end < len(text) and not text[end].isalpha() and text[end] != "~":
        end += 1
    return min(end + 1, len(text)) - at
