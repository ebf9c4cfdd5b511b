"""Planted bugs about files of the quorum that are damaged or gone (see `planted`)."""

from __future__ import annotations

from typing import Any

from metadata.quorum.newcomer import Newcomer


def votes_at_once(_original: Any) -> Any:
    """A voter that has lost its files votes at once."""

    def tick(self: Newcomer) -> None:
        if self.is_newcomer:
            self._settle(None)

    return tick


def always_torn(_original: Any) -> Any:
    def is_torn(_data: bytes, _position: int) -> bool:
        return True

    return is_torn
