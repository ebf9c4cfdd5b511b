"""What the product writes is made for its owner alone, whatever the umask of the process that starts it."""

from __future__ import annotations

import os

NOT_FOR_OTHERS = 0o077

_inherited: list[int] = []


def write_for_owner_alone() -> None:
    """From now on, in this process and in those that it starts."""
    _inherited.append(os.umask(NOT_FOR_OTHERS))
    os.umask(_inherited[-1] | NOT_FOR_OTHERS)


def of_caller() -> int:
    """The umask with which this process was started: that of commands which it runs for its caller. -1: as it is."""
    return _inherited[0] if _inherited else -1
