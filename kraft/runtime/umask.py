"""Files of the product are for their owner alone, whatever the umask of the process that starts it."""

from __future__ import annotations

import os

NOT_FOR_OTHERS = 0o077

_inherited: list[int] = []


def write_for_owner_alone() -> None:
    """Set the umask of this process and of those that it starts."""
    _inherited.append(os.umask(NOT_FOR_OTHERS))
    os.umask(_inherited[-1] | NOT_FOR_OTHERS)


def of_caller() -> int:
    """The umask with which this process was started, for commands that it runs for its caller. -1: unchanged."""
    return _inherited[0] if _inherited else -1
