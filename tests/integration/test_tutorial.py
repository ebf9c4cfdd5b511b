"""Every command of docs/tutorial.md does what its step promises, on the cluster that its first command starts."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
STEP_LIMIT_S = 120
SHOWN = {
    7: ["one", "two", "three", "four", "five"],
    8: ["refused, as it should be"],
    11: ["safe"],
    12: ["safe"],
}
"""Step -> lines that its output contains."""


def steps() -> dict[int, str]:
    """Step -> its commands."""
    text = TUTORIAL.read_text(encoding="utf-8")
    parts = re.split(r"^\*\*(\d+)\. ", text, flags=re.MULTILINE)[1:]
    return {
        int(number): "\n".join(re.findall(r"```sh\n(.*?)```", body, flags=re.DOTALL))
        for number, body in zip(parts[::2], parts[1::2], strict=True)
    }


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of the second terminal: `kraft up --faults` runs in the first."""
    assert steps()[1].strip() == "kraft up --faults"
    up = subprocess.Popen(
        [sys.executable, "-m", "kraft", "up", "--faults", "--no-console", "--json"], stdout=subprocess.PIPE, text=True
    )
    assert up.stdout is not None
    try:
        facts = json.loads(up.stdout.readline())
        yield {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "KRAFT_DATA": facts["data"],
            "KRAFT_REST": ",".join(node["rest"] for node in facts["nodes"]),
        }
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(30)
        up.stdout.close()


def test_each_step_of_the_tutorial_does_what_it_promises(shell: dict[str, str], tmp_path: Path) -> None:
    found = steps()
    assert [*found] == [*range(1, 13)]
    for number in range(2, 13):
        done = subprocess.run(
            ["bash", "-euc", found[number]],
            capture_output=True, text=True, check=False, timeout=STEP_LIMIT_S, env=shell, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, (number, done.stdout, done.stderr)
        for line in SHOWN.get(number, ()):
            assert line in done.stdout, (number, line, done.stdout, done.stderr)
        if number > 10:
            assert "doomed" not in done.stdout, (number, done.stdout)
