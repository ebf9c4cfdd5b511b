"""Text that strangers have chosen, for people and for tools that read lines."""

from __future__ import annotations

import re

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0, DEL, C1, what turns the direction of text around, and halves of characters."""
_OF_LAYOUT = "\n\t"


def visible(text: str, *, keep: str = _OF_LAYOUT) -> str:
    """With each control character as JSON writes it, but those of our own layout."""
    return _CONTROL.sub(lambda found: found[0] if found[0] in keep else f"\\u{ord(found[0]):04x}", text)
