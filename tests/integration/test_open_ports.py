"""A node whose ports others reach, with neither TLS nor users, begins with a sentence about it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.conftest import Processes
from tests.integration.support.configuration import write_config

pytestmark = pytest.mark.long


@pytest.mark.parametrize(("bind", "is_warned"), [("0.0.0.0", True), ("127.0.0.1", False)])
def test_a_node_names_its_open_ports(processes: Processes, tmp_path: Path, bind: str, is_warned: bool) -> None:
    path = write_config(tmp_path / "cluster.toml", roles={1: ("broker", "controller")}, keys={"bind": bind})
    Path(path).chmod(0o600)
    command = [sys.executable, "-P", "-m", "kraft", "node", "--config", path, "--id", "1"]
    node = processes.start([*command, "--data", str(tmp_path / "data")])
    assert node.stderr is not None
    said = b""
    while b"runs kraft" not in said:
        line = node.stderr.readline()
        assert line, said
        said += line
    assert (b"neither TLS nor users" in said) == is_warned, said
