"""A console ends by the command of another process than the one that has started it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

from kraft.launcher.console import PID_FILE, PROGRAM
from kraft.launcher.python import PYTHON

LAUNCHER = """
import subprocess, sys, time
console = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", sys.argv[1]])
print(console.pid, flush=True)
time.sleep(60)
"""
END = "import sys; from kraft.launcher.console import end_console; end_console(sys.argv[1])"


@pytest.mark.parametrize("is_console", [True, False])
def test_a_console_whose_launcher_does_not_wait_for_it_has_ended(tmp_path: Path, is_console: bool) -> None:
    """`kraft down` beside a `kraft up` that goes on: what is left of the console must not be waited for."""
    command = [*PYTHON, "-c", LAUNCHER, PROGRAM if is_console else "another program"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        pid = int(launcher.stdout.readline())
        try:
            (tmp_path / PID_FILE).write_text(str(pid))
            subprocess.run([*PYTHON, "-c", END, str(tmp_path)], check=True, timeout=20)
            assert not (tmp_path / PID_FILE).exists()
            assert bool(Path(f"/proc/{pid}/cmdline").read_bytes()) is not is_console
        finally:
            launcher.kill()
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
