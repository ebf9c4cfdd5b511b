"""Control of freed memory in the allocator of the C library, where that is glibc.

A node allocates a megabyte for each large frame and each large read, and frees it a moment later. By default glibc
returns the free end of the heap to the system as soon as it is twice as large as the largest block: the same pages may
then be cleared and mapped again for the next answer, which costs three times as much as reading the file into them. So
freed memory is kept while the process works, and returned when it has little to do.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Mapping
from typing import cast

KEPT_BYTES = 64 * 1024 * 1024
"""Free bytes at the end of the heap that are kept; more are returned at once. The 16 MiB of recent appends, and the
current answers and requests, fit into it."""
MAPPED_FROM_BYTES = 32 * 1024 * 1024
"""A longer block is mapped by itself, and returned when it is freed. glibc allows no larger value."""
TUNING = "KRAFT_ALLOCATOR_TUNING"
"""A variable of the environment; with `off` a node leaves the thresholds of glibc unchanged."""
BUSY_SHARE = 0.1
"""Share of one processor since the last look above which a process is working."""

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


_new_bytearray = ctypes.pythonapi.PyByteArray_FromStringAndSize
_new_bytearray.argtypes, _new_bytearray.restype = (ctypes.c_void_p, ctypes.c_ssize_t), ctypes.py_object


def uncleared(size: int) -> bytearray:
    """A bytearray with the previous content of its memory, for a caller that writes all of it before it is read.
    `bytearray(size)` writes zeros: every page of an announced frame is then taken from the system at once, before a
    byte of the frame has arrived."""
    return cast(bytearray, _new_bytearray(None, size))


class Heap:
    """The heap of this process. Does nothing with another C library. `variables` are those of the process; with TUNING
    `off` the thresholds are glibc's own."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        library = ctypes.CDLL(None)
        self._trim = getattr(library, "malloc_trim", None)
        tune = getattr(library, "mallopt", None)
        if variables.get(TUNING) != "off" and self._trim is not None and tune is not None:
            tune(_M_MMAP_THRESHOLD, MAPPED_FROM_BYTES)
            tune(_M_TRIM_THRESHOLD, KEPT_BYTES)
        self._looked_s, self._worked_s = time.monotonic(), time.process_time()
        self._was_busy = True

    def tend(self) -> None:
        """Return free memory, once after each time of work. To be called regularly; blocking, for a worker thread: the
        allocator is locked for a millisecond or two, which has no effect on an idle process."""
        now_s, worked_s = time.monotonic(), time.process_time()
        is_busy = worked_s - self._worked_s > BUSY_SHARE * (now_s - self._looked_s)
        self._looked_s, self._worked_s = now_s, worked_s
        if self._was_busy and not is_busy and self._trim is not None:
            self._trim(0)
        self._was_busy = is_busy
