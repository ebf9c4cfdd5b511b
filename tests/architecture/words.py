"""Words that a reader of English as a second language stumbles over, and what stands in their place.

`FOUND_MAX` is how often each may still be found in code and documents. A test fails when there are more; a change that
takes some away lowers the number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
FOLDERS: Final = (
    *("kraft", "metadata", "replication", "docs", "bench", "examples"),
    *("tests/simulation", "tests/support"),
)
AT_THE_ROOT: Final = ("*.md", "*.toml")
SUFFIXES: Final = frozenset({".py", ".md", ".toml", ".js", ".html", ".css", ".go", ".rs", ".java"})
LEFT_OUT: Final = ("kraft/protocol/messages/", "docs/notes/", "docs/modules.md")
"""Generated files, and what was written down at its time."""
_DONE: Final = "asks|begins|came|comes|finds|is (?:dead|deleted|connected)|names|reads|speaks|trusts|used"
INSTEAD: Final[Mapping[str, str]] = {
    r"(?<!\.)\btold\b": "gets, receives, is sent; a docstring that begins with the verb",
    r"\btells\b": "returns, sends, reports",
    r"\bsays\b": "states, names, returns",
    r"\bwhoever\b": "a client that, a caller that, each node that",
    r"\b(?:to|for|of) who\b": "to a client that, for a caller that",
    rf"[:;,.(\"] who (?:{_DONE})\b": "a client that, a caller that, a member that",
    r'"""(?:Of|By|As|Who|That) ': "a sentence with a subject and a verb",
    r"\breigns?\b": "leadership, leader epoch",
    r"\banew\b": "again, from the beginning",
}
"""Pattern -> what to write."""
FOUND_MAX: Final[Mapping[str, int]] = dict(zip(INSTEAD, (0,) * len(INSTEAD), strict=True))


def found() -> Mapping[str, int]:
    """How often each pattern is found."""
    texts = list(_texts())
    return {pattern: sum(len(re.findall(pattern, text, re.IGNORECASE)) for text in texts) for pattern in INSTEAD}


def _texts() -> Iterator[str]:
    for pattern in AT_THE_ROOT:
        for path in sorted(ROOT.glob(pattern)):
            yield path.read_text(encoding="utf-8")
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            name = str(path.relative_to(ROOT))
            if path.suffix in SUFFIXES and not name.startswith(LEFT_OUT):
                yield path.read_text(encoding="utf-8")
