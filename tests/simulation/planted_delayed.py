"""The planted bugs about delayed records and expiry; like `planted_bugs`, each takes the original."""

from __future__ import annotations

from typing import Any

from kraft.coordinators.copies import Copies
from kraft.coordinators.delayed.index import DueIndex


def due_early(original: Any) -> Any:
    """Records are taken for due before their time."""

    def take(self: DueIndex, now_ms: int, count: int) -> Any:
        return original(self, now_ms + 700, count)

    return take


def takes_over_blindly(_original: Any) -> Any:
    """A new leader does not look which copies have arrived."""

    async def _scan(self: Copies, topic: str, number: int, offset: int, producer_id: int) -> None:
        return None

    return _scan


def begins_behind_what_waits(_original: Any) -> Any:
    """A new leader reads from the progress of the one before on, and not what was waiting then."""

    async def _read_again(self: Any, index: DueIndex, arrived: Any = None) -> None:
        return None

    return _read_again


def deletes_what_waits(_original: Any) -> Any:
    """The log is deleted up to what was looked at."""

    def lowest_waiting(self: DueIndex) -> int:
        return self.progress.next_offset

    return lowest_waiting


def nothing_is_over(_original: Any) -> Any:
    """No record is too old to be handed out."""

    def is_over(_self: Any, record: Any, now_ms: int) -> bool:
        return False

    return is_over
