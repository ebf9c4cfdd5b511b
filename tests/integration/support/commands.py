"""Commands of `kraft` as forks of one process that has loaded them all: to start Python takes longer than most of them.

What runs after the fork is what `python -m kraft` runs, with the arguments, input, environment and folder of who asks.
"""

from __future__ import annotations

import gc
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

END_S: Final = 10.0


class Commands:
    """Runs one command at a time, and waits for its end."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, arguments: Sequence[str], *, stdin: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryDirectory() as folder:
            said = [Path(folder) / name for name in ("in", "out", "err")]
            said[0].write_text(stdin)
            asked = {
                "arguments": list(arguments),
                "files": [str(path) for path in said],
                "folder": os.getcwd(),
                "environment": dict(os.environ),
            }
            code = self._ask(asked, timeout_s)
            return subprocess.CompletedProcess(arguments, code, said[1].read_text(), said[2].read_text())

    def _ask(self, asked: dict[str, Any], timeout_s: float) -> int:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
                bufsize=0,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        ready, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        if not ready:
            self.close()
            raise AssertionError(f"kraft {asked['arguments']} has not ended within {timeout_s} s")
        return int(self._process.stdout.readline())

    def close(self) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
        finally:
            process.stdout.close()


COMMANDS: Final = Commands()
"""Of this process of the test run; closed by a fixture in `tests/integration/conftest.py`."""


def serve() -> None:
    """Returns in a fork that is to become a command."""
    from kraft.cli.main import build_app

    build_app()  # loads all commands
    gc.collect()
    gc.freeze()
    while line := sys.stdin.buffer.readline():
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(asked)
            return
        _, status = os.waitpid(pid, 0)
        os.write(1, b"%d\n" % os.waitstatus_to_exitcode(status))
    sys.exit(0)


def _become(asked: dict[str, Any]) -> None:
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    given, *said = asked["files"]
    os.dup2(os.open(given, os.O_RDONLY), 0)
    for number, path in enumerate(said, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for as long as the process lives
    sys.argv = ["kraft", *asked["arguments"]]


if __name__ == "__main__":
    serve()
    from kraft.cli.main import main

    main()
