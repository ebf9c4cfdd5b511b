"""The main thread of this process, seen from another one: its processor time, its stack, and the end of the process."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
import traceback

STACK_LINES_MAX = 60
"""Number of innermost calls in a stack."""
FAILED = 1


class MainThread:
    """Implements `metadata.watchdog.WatchedProcess`."""

    def __init__(self) -> None:
        thread = threading.main_thread().ident
        assert thread is not None
        self._thread = thread
        # Where a thread's own clock cannot be read (macOS), all time counts as computing.
        self._clock = time.pthread_getcpuclockid(thread) if sys.platform == "linux" else time.CLOCK_MONOTONIC

    def busy_ms(self) -> int:
        return time.clock_gettime_ns(self._clock) // 1_000_000

    def stack(self) -> list[str]:
        frame = sys._current_frames().get(self._thread)
        calls = [] if frame is None else traceback.extract_stack(frame)
        return [f"{call.filename}:{call.lineno} in {call.name}" for call in calls[-STACK_LINES_MAX:]]

    def lock(self) -> threading.Lock:
        return threading.Lock()

    def end(self, reason: str) -> None:
        sys.stderr.write(f"this node ends itself: {reason}\n")
        sys.stderr.flush()
        faulthandler.dump_traceback(all_threads=True)
        os._exit(FAILED)
