"""`kraft export kafka` and `kraft import kafka` as commands: exit code 1 with a sentence; the progress of a copy."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from kraft.cli import exchange, main
from kraft.cli.output import FAILED
from tests.unit.kafka_data.test_export import IMAGE, LOGS
from tests.unit.kafka_data.world import write_cluster


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command that fails prints, in one line."""
    monkeypatch.setattr(sys, "argv", ["kraft", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == FAILED == 1
    out, err = capsys.readouterr()
    assert not out
    return " ".join(err.split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("export", "kafka", "--to", "out", "--data", "no"),
            "error: there is no no/resolved.toml: no cluster was started",
        ),
        (("export", "kafka", "--to", "out", "--kafka", "3.8"), "error: '3.8' is no version of Kafka that data can be"),
        (("import", "kafka", "--from", "no", "--data", "out"), "error: there is no folder no"),
        (
            ("import", "kafka", "--from", ".", "--data", "out"),
            "error: . has no meta.properties, nor has a folder in it",
        ),
    ],
)
def test_a_refusal_is_a_sentence_and_exit_code_1(
    arguments: tuple[str, ...],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, capsys, *arguments).startswith(sentence)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_taken_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder of ours is none of Kafka's: it has the partitions, and no metadata of Kafka."""
    write_cluster(tmp_path / "data", IMAGE, LOGS)
    from_all = [argument for node in (1, 2, 3) for argument in ("--from", tmp_path / f"data/node-{node}")]
    said = run(monkeypatch, capsys, "import", "kafka", *from_all, "--data", tmp_path / "back")
    assert said == "error: no folder has __cluster_metadata-0: name the log.dirs of the controllers, too"


def test_progress_is_one_line_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "TERMINAL_EVERY_S", 0)
    controller, terminal = os.openpty()
    with os.fdopen(terminal, "w") as stderr, os.fdopen(controller, "rb", buffering=0) as screen:
        monkeypatch.setattr(sys, "stderr", stderr)
        with exchange._progress(3_000_000) as on_bytes:
            on_bytes(1_000_000)
            on_bytes(2_000_000)
        shown = ""
        while "\n" not in shown:
            shown += screen.read(1_000).decode()
    assert re.findall(r"\r([^\r\x1b]+)\x1b\[K", shown) == [
        "1,000,000 of 3,000,000 bytes copied",
        *["3,000,000 of 3,000,000 bytes copied"] * 2,
    ]
    assert shown.count("\n") == 1
    assert shown.endswith("\n")


def test_progress_in_a_pipe_is_plain_and_rare(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with exchange._progress(10) as on_bytes:
        on_bytes(5)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(exchange, "LINES_EVERY_S", 0)
    with exchange._progress(10) as on_bytes:
        on_bytes(5)
    assert capsys.readouterr().err == "5 of 10 bytes copied\n"
