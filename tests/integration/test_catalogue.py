"""The catalogue on real nodes. One story runs always; the others with `-m slow`."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from kraft.chaos import catalogue
from kraft.chaos.live import NobodyWatches
from kraft.chaos.result import RunResult
from kraft.chaos.worlds.processes.run import run_scenario
from kraft.cli.main import main

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


class Said(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def kraft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """`kraft scenario` in this process: to load what it needs takes longer than most of what is asked of it here."""
    monkeypatch.chdir(tmp_path)

    def run_here(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["kraft", "scenario", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return Said(int(end.value.code or 0), *capsys.readouterr())

    return run_here


def test_a_story_that_only_rest_clients_can_tell_reports_it(kraft: Callable[..., Said]) -> None:
    refused = kraft("run", "deposed-leader", "--client", "kafka")
    assert refused.returncode == 2
    assert "deposed-leader can be run with REST clients only: its clients go on writing to a leader" in refused.stderr


WRONG = '''\
from kraft.chaos.model import Expect, Producer, Topic
from kraft.chaos.story import ScenarioRun, scenario


@scenario(
    "wrong",
    question="Is a wrong expectation noticed?",
    brokers=[1],
    controllers=[1],
    topics=[Topic(name="t", assignment=[[1]])],
    clients=[Producer(name="p", topic="t", limit=20)],
    expect=Expect(lost=3),
)
async def wrong(run: ScenarioRun) -> None:
    """Nothing happens."""
    await run.until(lambda now: now.done("p"))
'''


@pytest.mark.timeout(LIMIT_S)
def test_the_command_reports_with_its_exit_code_what_came_out(tmp_path: Path, kraft: Callable[..., Said]) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    (tmp_path / "right.py").write_text(WRONG.replace("lost=3", "lost=0, kept=20"))
    stuck = 'now.done("p"))', 'now.acked("p") == 21, deadline_ms=1_000)'
    (tmp_path / "stuck.py").write_text(WRONG.replace(*stuck))
    (tmp_path / "broken.py").write_text(WRONG.replace("now.done", "now.dome"))

    program = [sys.executable, "-m", "kraft", "scenario", "run", "right.py", "--report", "report", "--json"]
    right = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert right.returncode == 0, right.stderr
    assert json.loads(right.stdout)["verdict"]["counts"]["kept"] == 20
    assert {path.name for path in (tmp_path / "report").iterdir()} >= {
        "report.html",
        "history.jsonl",
        "events.jsonl",
        "verdict.json",
    }
    assert kraft("check", "report/history.jsonl").returncode == 0

    # In virtual time, which needs no nodes: what the exit code is made of is the same.
    wrong = kraft("run", "wrong.py", "--simulated")
    assert wrong.returncode == 1
    assert "lost: 0 records, expected 3" in wrong.stdout

    stuck = kraft("run", "stuck.py", "--simulated")
    assert stuck.returncode == 2
    assert "now.acked('p') == 21 did not hold within 1000 ms: acked(p) is 20" in stuck.stdout

    broken = kraft("run", "broken.py")
    assert broken.returncode == 2
    assert (
        "broken.py:16: the story is wrong: AttributeError: 'Now' object has no attribute 'dome'; did you mean done?"
        in (broken.stderr)
    )
