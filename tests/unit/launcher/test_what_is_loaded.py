"""What the processes of a start load: a node no clients of libraries, a command no other commands."""

from __future__ import annotations

import json
import subprocess

import pytest

from kraft.launcher.python import PYTHON

NODE = """
import gc
from kraft.launcher.partial_imports import loading_a_node
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


def test_lean_loading_off() -> None:
    text = "import os, dataclasses\nos.environ['KRAFT_LEAN_LOADING'] = 'off'\nbefore = dict(vars(dataclasses))\n"
    text += NODE.replace("    import kraft", "    assert vars(dataclasses) == before\n    import kraft")
    assert {"aiohttp.client", "aiokafka.producer"} <= loaded(text)


@pytest.mark.parametrize("by", [UP, EXEC, TESTS])
def test_who_starts_nodes_loads_none(by: str) -> None:
    unused = ("metadata", "replication", "kraft.chaos", "kraft.config", "kraft.node", "aiohttp", "pydantic")
    assert not [name for name in loaded(by) if f"{name}.".startswith(tuple(f"{each}." for each in unused))]


def test_every_command_is_known_to_help() -> None:
    text = "from kraft.cli.main import _COMMANDS, build_app\nfrom typer.main import get_command\n"
    text += "assert set(get_command(build_app()).commands) == set(_COMMANDS)\n"
    text += "assert all(list(get_command(build_app([name])).commands) == [name] for name in _COMMANDS)"
    subprocess.run([*PYTHON, "-c", text], check=True, timeout=120)


def test_the_process_that_forks_is_started_before_anything_else_is_loaded() -> None:
    modules = loaded("import kraft.cli.main, kraft.launcher.fork_start")
    assert not modules & {"msgspec", "dataclasses", "asyncio", "socket", "typer"}
    assert len([name for name in modules if name.startswith("kraft.")]) == 7


DATA_CLASSES = """
import dataclasses, sys
from dataclasses import FrozenInstanceError, dataclass, field
from kraft.launcher.partial_imports import loading_a_node

def classes():
    @dataclass(frozen=True)
    class Base:
        a: int
        hidden: int = field(default=7, repr=False)

    @dataclass(frozen=True, slots=True)
    class Slotted:
        a: int
        b: object = None

    @dataclass
    class Open:
        a: object

    class Below(Base):
        pass

    return Base, Slotted, Open, Below

def refused(act):
    try:
        act()
    except Exception as error:
        return type(error), str(error)

def told(made):
    base, slotted, open_, below = made
    mine = open_(1)
    mine.a = [mine]
    free = below(1)
    free.other = 5
    yield from map(repr, (base(1), slotted(1, base(2)), mine, free))
    for each in (base(1), slotted(1), below(1)):
        for name in ("a", "nothing"):
            yield refused(lambda: setattr(each, name, 2))
            yield refused(lambda: delattr(each, name))
    yield free.other, hash(base(1)) == hash(base(1)), base(1) == base(1), base(1) != base(2)
    yield [[vars(cls)[name].__qualname__ for name in ("__repr__", "__init__")] for cls in made[:3]]

before = list(told(classes()))
with loading_a_node():
    lean = classes()
    import kraft.launcher.runfile
assert list(told(lean)) == before == list(told(classes())), (list(told(lean)), before)
assert before[4][0] is FrozenInstanceError
is_replaced = lean[0].__repr__.__globals__ is not classes()[0].__repr__.__globals__
assert is_replaced or sys.version_info >= (3, 13)
"""


def test_data_classes_are_the_same_that_python_makes() -> None:
    loaded(DATA_CLASSES)


AHEAD = """
import sys
from kraft.launcher.identity import IdentityAhead
from metadata.cluster_keys import cluster_keys

ahead = IdentityAhead()
ahead.wait()
identity = ahead.take()
cluster_keys(identity.secret, cluster_id=identity.cluster_id)
assert cluster_keys.cache_info()[:2] == (1, 1), "derived once, before it was asked for"
others = {ahead.take() for _ in range(3)}
assert len({each.secret for each in others | {identity}}) == len({each.cluster_id for each in others | {identity}}) == 4
"""


def test_the_keys_of_the_first_new_cluster_are_derived_before_it_is_asked_for() -> None:
    loaded(AHEAD)


ENDED = """
from kraft.launcher import identity
identity.cluster_keys = lambda *_, **__: None
import os
for _ in range(300):
    identity.IdentityAhead().wait()
    assert len(os.listdir("/proc/self/task")) == 1
"""


def test_the_thread_that_derives_keys_is_gone_when_it_was_waited_for() -> None:
    """`Thread.join` returns a moment before, in one of three cases."""
    loaded(ENDED)
