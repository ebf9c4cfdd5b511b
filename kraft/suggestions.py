"""What may have been meant: the known name that is closest to a misspelled one. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest_key_hint(name: str, known: Iterable[str], *, otherwise: str = "see the list of settings") -> str:
    """The part of a sentence that says what would be right; `otherwise` when nothing known is close."""
    near = difflib.get_close_matches(name, tuple(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else otherwise
