"""docs/testing.md, and what README.md says of tests: their blocks of code run as they stand, in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from kraft.cli.main import build_app

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## In your tests\n")[2].partition("\n## ")[0]
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLUGIN = ("-p", "no:kraft", "-p", "kraft.testing.plugin", "-p", "no:schemathesis", "-p", "no:cacheprovider")
"""By its module, whether this installation knows of the entry point or not."""
LIMIT_S = 280


def blocks(language: str) -> list[str]:
    return [code for found, code in BLOCK.findall(README + PAGE) if found == language]


SUITES = [code for code in blocks("python") if "def test_" in code]
PROGRAMS = [code for code in blocks("python") if code not in SUITES]


def run(*command: str, folder: Path) -> str:
    """`kraft` is a command, as where the package is installed."""
    (folder / "bin").mkdir()
    kraft = folder / "bin" / "kraft"
    kraft.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m kraft "$@"\n')
    kraft.chmod(0o755)
    variables = {**os.environ, "PATH": f"{kraft.parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_pages_have_blocks_of_each_kind() -> None:
    assert (len(SUITES), len(PROGRAMS), len(blocks("sh"))) == (4, 1, 3)


@pytest.mark.long
@pytest.mark.parametrize("code", SUITES)
def test_a_suite_of_the_page_passes(code: str, tmp_path: Path) -> None:
    (tmp_path / "test_orders.py").write_text(code)
    said = run(sys.executable, "-P", "-m", "pytest", *PLUGIN, folder=tmp_path)
    assert f"{code.count('def test_')} passed" in said


@pytest.mark.long
@pytest.mark.parametrize("code", PROGRAMS)
def test_a_program_of_the_page_runs(code: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(code)
    assert "['running', 'down', 'running']" in run(sys.executable, "program.py", folder=tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("code", blocks("sh"))
def test_a_command_of_the_page_works(code: str, tmp_path: Path) -> None:
    assert run("sh", "-ec", code, folder=tmp_path)


def test_the_page_names_the_faults_that_the_command_has() -> None:
    commands = set(get_command(build_app(["fault"])).commands["fault"].commands)  # type: ignore[attr-defined]
    text = PAGE.partition("| `kraft fault` |")[2].partition("\n\n")[0]
    rows = "\n".join(line.partition("|")[2].partition("|")[0] for line in text.splitlines())
    assert set(re.findall(r"`([a-z-]+)`", rows)) == commands
