"""What a process uses, from /proc; nothing where there is none (macOS)."""

from __future__ import annotations

import os
from pathlib import Path

from kraft.chaos.soak.leaks import Usage


def usage_of(pid: int, *, at_ms: int) -> Usage | None:
    """None: the process is gone, or the system does not tell."""
    folder = Path(f"/proc/{pid}")
    try:
        pages = int((folder / "statm").read_text().split()[1])
        files = len(os.listdir(folder / "fd"))
    except OSError:
        return None
    return Usage(at_ms=at_ms, memory_bytes=pages * os.sysconf("SC_PAGE_SIZE"), open_files=files)
