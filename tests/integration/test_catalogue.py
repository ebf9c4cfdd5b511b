"""The catalogue on real nodes. One story runs always; the others with `-m slow`."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from kraft.chaos import catalogue
from kraft.chaos.live import NobodyWatches
from kraft.chaos.result import RunResult
from kraft.chaos.worlds.processes.run import run_scenario

ALWAYS = ("acks1-leader-kill",)
LIMIT_S = 240
"""On a machine that is busy with much else."""


def run(name: str) -> RunResult:
    return asyncio.run(run_scenario(catalogue.SCENARIOS[name], seed=1, watcher=NobodyWatches()))


def check(result: RunResult) -> None:
    assert result.problems == ()
    assert result.exit_code == 0


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("name", ALWAYS)
def test_a_story_ends_as_expected(name: str) -> None:
    check(run(name))


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("name", [name for name in catalogue.NAMES if name not in ALWAYS])
def test_every_other_story_ends_as_expected(name: str) -> None:
    check(run(name))


def test_a_story_that_only_rest_clients_can_tell_says_so(tmp_path: Path) -> None:
    refused = kraft("run", "deposed-leader", "--client", "kafka", cwd=tmp_path)
    assert refused.returncode == 2
    assert "deposed-leader can be told by REST clients only: its clients go on writing to a leader" in refused.stderr


def kraft(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kraft", "scenario", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=LIMIT_S, check=False)


WRONG = '''\
from kraft.chaos.model import Expect, Producer, Topic
from kraft.chaos.story import Stage, scenario


@scenario(
    "wrong",
    question="Is a wrong expectation noticed?",
    brokers=[1],
    controllers=[1],
    topics=[Topic(name="t", assignment=[[1]])],
    clients=[Producer(name="p", topic="t", limit=20)],
    expect=Expect(lost=3),
)
async def wrong(stage: Stage) -> None:
    """Nothing happens."""
    await stage.until(lambda now: now.done("p"))
'''


@pytest.mark.timeout(LIMIT_S)
def test_the_command_says_with_its_exit_code_what_came_out(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    (tmp_path / "right.py").write_text(WRONG.replace("lost=3", "lost=0, kept=20"))
    stuck = 'now.done("p"))', 'now.acked("p") == 21, deadline_ms=1_000)'
    (tmp_path / "stuck.py").write_text(WRONG.replace(*stuck))
    (tmp_path / "broken.py").write_text(WRONG.replace("now.done", "now.dome"))

    right = kraft("run", "right.py", "--report", "report", "--json", cwd=tmp_path)
    assert right.returncode == 0, right.stderr
    assert json.loads(right.stdout)["verdict"]["counts"]["kept"] == 20
    assert {path.name for path in (tmp_path / "report").iterdir()} >= {
        "report.html",
        "history.jsonl",
        "events.jsonl",
        "verdict.json",
    }
    assert kraft("check", "report/history.jsonl", cwd=tmp_path).returncode == 0

    # In virtual time, which needs no nodes: what the exit code is made of is the same.
    wrong = kraft("run", "wrong.py", "--simulated", cwd=tmp_path)
    assert wrong.returncode == 1
    assert "lost: 0 records, expected 3" in wrong.stdout

    stuck = kraft("run", "stuck.py", "--simulated", cwd=tmp_path)
    assert stuck.returncode == 2
    assert "now.acked('p') == 21 did not hold within 1000 ms: acked(p) is 20" in stuck.stdout

    broken = kraft("run", "broken.py", cwd=tmp_path)
    assert broken.returncode == 2
    assert (
        "broken.py:16: the story is wrong: AttributeError: 'Now' object has no attribute 'dome'; did you mean done?"
        in (broken.stderr)
    )
