"""Whose modules our own processes find, whatever PYTHONPATH says."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from kraft.launcher.python import PYTHON, environment


@pytest.mark.parametrize("hiding", ["metadata.py", "replication/__init__.py", "kraft/__init__.py", "secrets.py"])
def test_a_folder_that_hides_a_module_is_left_out_and_the_others_stay(
    hiding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    wanted, project = tmp_path / "wanted", tmp_path / "project"
    for path in (wanted / "sitecustomize.py", project / hiding):
        path.parent.mkdir(parents=True)
        path.write_text("raise SystemExit('somebody else')" if path.parent != wanted else "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (project, wanted, tmp_path / "missing"))))
    assert environment()["PYTHONPATH"] == os.pathsep.join(map(str, (wanted, tmp_path / "missing")))
    command = [*PYTHON, "-c", "import secrets, kraft.config.models, replication"]
    subprocess.run(command, env=environment(), cwd=project, check=True, timeout=120)


def test_our_own_folder_and_a_path_that_is_empty_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch):
    home = str(Path(__file__).parents[3])
    monkeypatch.setenv("PYTHONPATH", home)
    assert environment()["PYTHONPATH"] == home
    monkeypatch.delenv("PYTHONPATH")
    assert "PYTHONPATH" not in environment()
