"""What the processes of a start load: a node no clients of libraries, a command no other commands."""

from __future__ import annotations

import json
import subprocess

import pytest

from kraft.launcher.python import PYTHON

NODE = """
import gc
from kraft.launcher.lean import loading_a_node
with loading_a_node():
    assert not gc.isenabled()
    import kraft.launcher.fork_server
assert gc.isenabled()
"""
UP = "from kraft.cli.main import build_app; build_app(['up'])"
EXEC = "from kraft.cli.main import build_app; build_app(['exec'])"
TESTS = "import kraft.testing"


def loaded(by: str) -> set[str]:
    text = f"{by}\nimport json, os, sys\nprint(json.dumps([*sys.modules, len(os.listdir('/proc/self/task'))]))"
    done = subprocess.run([*PYTHON, "-c", text], capture_output=True, text=True, check=True, timeout=120)
    *modules, threads = json.loads(done.stdout)
    assert threads == 1, "a process with threads cannot fork"
    return set(modules)


def test_a_node_loads_the_parts_of_libraries_that_it_uses() -> None:
    modules = loaded(NODE)
    assert {"kraft.node.process", "aiohttp.web", "aiokafka.record._crecords"} <= modules
    unused = {"aiohttp.client", "aiohttp.connector", "aiokafka.client", "aiokafka.consumer", "aiokafka.producer"}
    assert not modules & unused
    assert not [name for name in modules if name.startswith(("kraft.chaos", "kraft.cli", "typer", "rich"))]


@pytest.mark.parametrize("by", [UP, EXEC, TESTS])
def test_who_starts_nodes_loads_none(by: str) -> None:
    unused = ("metadata", "replication", "kraft.chaos", "kraft.config", "kraft.node", "aiohttp", "pydantic")
    assert not [name for name in loaded(by) if f"{name}.".startswith(tuple(f"{each}." for each in unused))]


def test_every_command_is_known_to_help() -> None:
    text = "from kraft.cli.main import _COMMANDS, build_app\nfrom typer.main import get_command\n"
    text += "assert set(get_command(build_app()).commands) == set(_COMMANDS)\n"
    text += "assert all(list(get_command(build_app([name])).commands) == [name] for name in _COMMANDS)"
    subprocess.run([*PYTHON, "-c", text], check=True, timeout=120)
