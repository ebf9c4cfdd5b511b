"""The house rules, over the whole product; and for each rule a planted snippet that it must catch."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.architecture import rules, sources
from tests.architecture.deadlines import SOME_DEADLINE, short_deadlines
from tests.architecture.sources import ROOT, Module, module, product_modules
from tests.architecture.spinning import loops_that_may_spin

Rule = Callable[[Module], Iterator[str]]
RULES: tuple[Rule, ...] = (
    rules.touches_outside,
    rules.long_functions,
    rules.foreign_imports,
    rules.prints,
    rules.unsafe_python,
    rules.missing_docstring,
    rules.unfinished,
    loops_that_may_spin,
)

_SPINS_ON_A_TASK = """
class A:
    async def prove(self):
        while self._proven < needed:
            if self._proving is None:
                self._begin()
            await asyncio.shield(self._proving)
"""
_SPINS_BEHIND_A_METHOD = """
class A:
    async def next_id(self):
        while not self._block:
            await self._fetched()
    async def _fetched(self):
        await asyncio.shield(self._fetch())
    def _fetch(self):
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch_block())
        return self._fetching
"""
_SPINS_ON_A_FUTURE = """
class A:
    async def drain(self):
        while self._writable is not None:
            await self._writable
"""
_SPINS_ON_AN_EVENT = """
class A:
    def __init__(self):
        self._grown = asyncio.Event()
    async def wait(self):
        while self.end < offset:
            await self._grown.wait()
"""

PLANTED: tuple[tuple[Rule, str, str, str], ...] = (
    (rules.touches_outside, "metadata.x", "import time", "environment.clock"),
    (rules.touches_outside, "metadata.x", "from time import monotonic", "environment.clock"),
    (rules.touches_outside, "kraft.http.x", "from datetime import datetime\ndatetime.now()", "wall_ms"),
    (rules.touches_outside, "kraft.http.x", "import datetime\ndatetime.datetime.now()", "wall_ms"),
    (rules.touches_outside, "metadata.x", "import random\nrandom.randint(1, 2)", "environment.rng"),
    (rules.touches_outside, "metadata.x", "from random import choice", "environment.rng"),
    (rules.touches_outside, "metadata.x", "import random\nrandom.SystemRandom()", "environment.rng"),
    (rules.touches_outside, "metadata.x", "import os\nos.urandom(4)", "environment.rng"),
    (rules.touches_outside, "metadata.x", "import os\nf = os.replace", "environment.files"),
    (rules.touches_outside, "metadata.x", "import os\nos.path.exists('/')", "environment.files"),
    (rules.touches_outside, "metadata.x", "import uuid\nuuid.uuid4()", "randbytes"),
    (rules.touches_outside, "metadata.x", "from uuid import uuid4", "randbytes"),
    (rules.touches_outside, "metadata.x", "import secrets", "randbytes"),
    (rules.touches_outside, "replication.x", "open('f')", "environment.files.open"),
    (rules.touches_outside, "replication.x", "Path('f').read_bytes()", "environment.files"),
    (rules.touches_outside, "replication.x", "import shutil", "environment.files"),
    (rules.touches_outside, "replication.x", "import tempfile", "environment.files"),
    (rules.touches_outside, "kraft.wire.x", "import socket", "environment.network"),
    (rules.touches_outside, "kraft.wire.x", "import threading", "environment.workers"),
    (rules.touches_outside, "kraft.wire.x", "import concurrent.futures", "environment.workers"),
    (rules.touches_outside, "kraft.wire.x", "import subprocess", "kraft.launcher"),
    (rules.touches_outside, "kraft.broker.x", "import asyncio\nasyncio.sleep(1)", "clock.sleep"),
    (rules.touches_outside, "kraft.broker.x", "from asyncio import sleep", "clock.sleep"),
    (rules.touches_outside, "kraft.broker.x", "import asyncio\nasyncio.wait_for(f(), 1)", "clock.timeout"),
    (rules.touches_outside, "kraft.broker.x", "import asyncio\nasyncio.timeout(1)", "clock.timeout"),
    (rules.touches_outside, "kraft.broker.x", "import asyncio\nasyncio.to_thread(f)", "workers.run"),
    (rules.touches_outside, "kraft.broker.x", "import asyncio\nasyncio.open_connection()", "network.connect"),
    (rules.touches_outside, "kraft.broker.x", "import asyncio\nasyncio.start_server(f)", "network.listen"),
    (rules.touches_outside, "kraft.broker.x", "loop.run_in_executor(None, f)", "workers.run"),
    (rules.touches_outside, "kraft.broker.x", "self._loop.time()", "monotonic_ms"),
    (rules.touches_outside, "kraft.broker.x", "asyncio.get_running_loop().call_later(1, f)", "clock.call_later"),
    (rules.long_functions, "kraft.x", "def f():\n" + "    pass\n" * 50, "51 lines"),
    (rules.foreign_imports, "kraft.broker.x", "import aiohttp.web", "kraft.http and kraft.client"),
    (rules.foreign_imports, "metadata.controller.x", "from pysyncobj import SyncObj", "metadata.quorum"),
    (rules.foreign_imports, "replication.partition.x", "from kio.schema import fetch", "the tests"),
    (rules.prints, "kraft.http.x", "print('x')", "logging"),
    (rules.unsafe_python, "kraft.x", "import sys\nrun([sys.executable, '-m', 'kraft'])", "without -P"),
    (rules.unsafe_python, "kraft.x", "import sys\npython = sys.executable", "without -P"),
    (rules.missing_docstring, "kraft.x", "x = 1", "docstring"),
    (loops_that_may_spin, "kraft.x", _SPINS_ON_A_TASK, "asyncio.shield(self._proving), which does not suspend"),
    (loops_that_may_spin, "kraft.x", _SPINS_BEHIND_A_METHOD, "self._fetched(), which does not suspend"),
    (loops_that_may_spin, "kraft.x", _SPINS_ON_A_FUTURE, "self._writable, which does not suspend"),
    (loops_that_may_spin, "kraft.x", _SPINS_ON_AN_EVENT, "nothing clears _grown"),
    (rules.unfinished, "kraft.x", "raise NotImplementedError", "unfinished"),
)

ALLOWED = (
    "import asyncio\nasyncio.get_running_loop().call_soon(f)\nasyncio.Event()\nasyncio.gather()",
    "async def f(clock):\n    await clock.sleep(1)\n    clock.call_later(1, f)\n    environment.files.open('x')",
    "import random\ndef f(rng: random.Random) -> None: ...\nrandom.Random(1)",
    "import os\nos.path.join('a', 'b')\nos.strerror(2)",
    "import uuid\nuuid.UUID(bytes=b'', version=4)",
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_product_keeps_the_rule(rule: Rule) -> None:
    complaints = [complaint for module in product_modules() for complaint in rule(module)]
    assert not complaints, "\n" + "\n".join(complaints)


@pytest.mark.parametrize(("rule", "name", "text", "expected"), PLANTED)
def test_the_rule_catches_a_planted_offence(rule: Rule, name: str, text: str, expected: str) -> None:
    complaints = list(rule(module(name, text)))
    assert complaints, f"{rule.__name__} let {text!r} pass"
    assert expected in complaints[0]


@pytest.mark.parametrize(
    "text",
    [
        _SPINS_ON_A_TASK.replace("if self._proving is None", "if self._proving is None or self._proving.done()"),
        _SPINS_BEHIND_A_METHOD.replace("is None:", "is None or self._fetching.done():"),
        _SPINS_ON_A_FUTURE.replace("await self", "self._writable = loop.create_future()\n            await self"),
        _SPINS_ON_AN_EVENT + "        self._grown.clear()\n",
        _SPINS_ON_AN_EVENT + "    def grow(self):\n        grown, self._grown = self._grown, asyncio.Event()\n",
    ],
)
def test_suspending_loop_is_allowed(text: str) -> None:
    assert list(loops_that_may_spin(module("kraft.x", text))) == []


@pytest.mark.parametrize("text", ALLOWED)
def test_allowed_code_passes(text: str) -> None:
    assert list(rules.touches_outside(module("kraft.broker.x", text))) == []


def test_python_dash_p_is_allowed() -> None:
    assert not list(rules.unsafe_python(module("kraft.x", "import sys\nrun([sys.executable, '-P', '-m', 'kraft'])")))


def test_only_the_folders_outside_may_touch_the_world() -> None:
    offence = "import socket"
    assert list(rules.touches_outside(module("kraft.runtime.network", offence))) == []
    assert list(rules.touches_outside(module("kraft.runtimes", offence)))


def test_python_is_started_safely_outside_product() -> None:
    paths = [path for folder in ("bench", "examples") for path in (ROOT / folder).rglob("*.py")]
    assert paths
    modules = [module(str(path.relative_to(ROOT)), path.read_text()) for path in paths]
    assert not [complaint for each in modules for complaint in rules.unsafe_python(each)]


def test_deadlines_of_tests_are_long() -> None:
    complaints = [complaint for each in sources.modules_of_tests(SOME_DEADLINE) for complaint in short_deadlines(each)]
    assert not complaints, "\n" + "\n".join(complaints)


@pytest.mark.parametrize(
    ("text", "is_short"),
    [
        ("async with asyncio.timeout(5): ...", True),
        ("await asyncio.wait_for(story, 9.5)", True),
        ("wait_until(is_led, deadline_s=3)", True),
        ("client.settimeout(1)", True),
        ("subprocess.run(command, timeout=2)", True),
        ("await peers.connection(1, 'fetch', timeout_ms=1_000)", True),
        ("START_DEADLINE_S = 5", True),
        ("async with asyncio.timeout(10): ...", False),
        ("await peers.connection(1, 'fetch', timeout_ms=50)  # short: nobody answers", False),
        ("ProduceRequest(batches={}, acks=-1, timeout_ms=1)", False),
        ("import kraft.chaos.worlds.simulated.environment\nasync with asyncio.timeout(5): ...", False),
    ],
)
def test_short_deadline_needs_a_reason(text: str, is_short: bool) -> None:
    assert SOME_DEADLINE.search(text)
    assert bool(list(short_deadlines(module("tests.unit.x", text)))) is is_short


def test_no_module_is_dead() -> None:
    assert not list(rules.dead_modules(product_modules())), "\n" + "\n".join(rules.dead_modules(product_modules()))


def test_a_dead_module_is_found() -> None:
    alive, dead = module("kraft.alive", ""), module("kraft.dead", "from kraft import alive")
    assert list(rules.dead_modules([alive, dead])) == [
        "kraft/dead.py is imported by no module of the product: remove it, or make it an entry point"
    ]


def lint_imports(folder: Path, config: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()"]
    options = ["--config", str(config), "--no-cache"]
    return subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True, timeout=100)


def test_imports_point_one_way() -> None:
    result = lint_imports(ROOT, ROOT / "pyproject.toml")
    assert result.returncode == 0, result.stdout + result.stderr


def test_layers_contain_all_packages() -> None:
    """A package that no layer names could be imported by any."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(each["layers"] for each in contracts if each["type"] == "layers")
    named = {name.strip() for layer in layers for name in re.split("[:|]", layer)}
    there = {".".join(each.name.split(".")[:2]) for each in product_modules() if each.name.startswith("kraft.")}
    assert named == there | {"replication", "metadata"}


def test_upward_import_is_found(tmp_path: Path) -> None:
    for package in ("metadata", "replication", "kraft"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "metadata" / "bad.py").write_text("import replication\n")
    config = tmp_path / "importlinter.ini"
    config.write_text(
        "[importlinter]\nroot_packages =\n    metadata\n    replication\n    kraft\n\n[importlinter:contract:1]\n"
        "name = layers\ntype = layers\nlayers =\n    kraft\n    replication\n    metadata\n"
    )
    result = lint_imports(tmp_path, config)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "metadata is not allowed to import replication" in result.stdout
