"""What a node writes is for who runs it: no other user of the machine reads records, keys of groups, or its log."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.support.cluster import Cluster
from tests.integration.support.configuration import BOTH, write_config

OTHERS = stat.S_IRWXG | stat.S_IRWXO


@pytest.fixture
def careless() -> Iterator[None]:
    """A person whose files are everybody's, unless their makers say otherwise."""
    before = os.umask(0)
    yield
    os.umask(before)


def open_to_others(folder: Path) -> list[str]:
    paths = [folder, *folder.rglob("*")]
    assert len(paths) > 5, paths
    return [f"{path} {path.stat().st_mode:o}" for path in paths if path.stat().st_mode & OTHERS]


@pytest.mark.usefixtures("careless")
def test_nothing_that_a_node_makes_is_open_to_others(stopped_cluster: Cluster, tmp_path: Path) -> None:
    cluster = stopped_cluster
    cluster.is_of_programs = True  # so that they inherit the umask
    cluster.config = write_config(tmp_path / "cluster.toml", roles={1: BOTH}, settings={})
    cluster.start()
    cluster.create_topic("t", replication_factor=1)
    cluster.write_all("t", ["secret"])
    folder = Path(cluster.node(1).data)
    assert open_to_others(folder) == []
    cluster.stop_all()
    assert open_to_others(folder) == []
    # As an earlier version left them.
    for path in (folder, folder / "logs", *(folder / "logs").rglob("*.log")):
        path.chmod(0o755)
    cluster.start_again()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "logs")] == [0o750, 0o750]
    assert f"{folder} was open to everybody" in (folder / "node.log").read_text()


@pytest.mark.long
@pytest.mark.usefixtures("careless")
def test_nothing_that_a_command_makes_is_open_to_others(tmp_path: Path) -> None:
    """`kraft exec` starts a whole cluster in a folder that it names; its own command keeps the caller's umask."""
    listed = (
        "import os, pathlib, sys; pathlib.Path(sys.argv[1]).write_text('mine');"
        "data = pathlib.Path(os.environ['KRAFT_DATA']);"
        "print([str(p) for p in [data, *data.rglob('*')] if p.lstat().st_mode & 0o077])"
    )
    made, report = tmp_path / "made", tmp_path / "report"
    done = subprocess.run(
        [sys.executable, "-m", "kraft", "exec", "--nodes", "1", "--", sys.executable, "-c", listed, str(made)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[-2] == "[]", done.stdout
    assert stat.S_IMODE(made.stat().st_mode) == 0o666
    done = subprocess.run(
        [sys.executable, "-m", "kraft", "scenario", "run", "acks0-leader-kill", "--simulated", "--report", str(report)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert report.exists(), done.stderr
    assert open_to_others(report) == []
