"""Each program of `bench` that needs no cluster does all of its work, in little of it. The rows that need one:
`tests/integration/test_bench.py`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bench import consumers, history, idle_logs, messages
from kraft.chaos.checkers.check import HISTORY_FILE
from kraft.runtime.descriptors import share_out


@pytest.mark.long
def test_consumers_are_made_and_weighed(capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(consumers.run(20))
    assert len(capsys.readouterr().out.splitlines()) == len(consumers.SHAPES)


@pytest.mark.parametrize("name", messages.rows())
def test_a_message_goes_there_and_back(name: str) -> None:
    for without_or_with_handler in messages.rows()[name]:
        without_or_with_handler()


def test_a_history_is_written_and_judged(tmp_path: Path) -> None:
    path = tmp_path / HISTORY_FILE
    history.write_history(path, 30, 2)
    history.judge(path, 60)


@pytest.mark.long
def test_idle_logs_are_made_written_and_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = idle_logs._measure(str(tmp_path), 3, shares=share_out(1_000), writes=True, traced=False)
    asyncio.run(measured)
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines() if "logs" in line] == [
        "made",
        "wrote",
        "stopped",
        "loaded",
    ]
