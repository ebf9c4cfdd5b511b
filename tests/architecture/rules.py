"""The house rules as functions from a module to complaints. Each complaint contains what to use instead."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence

from tests.architecture.sources import Module, imported_names, is_inside

FUNCTION_LINES_MAX = 50

OUTSIDE_FOLDERS: Mapping[str, str] = {
    "kraft.system_clock": "the real clock, of nodes and of programs that are no nodes",
    "kraft.runtime": "it is what implements the environment with the real thing",
    "kraft.cli": "commands of a person at a terminal, no part of a running node",
    "kraft.kafka_data.copying": "links and copies files of clusters that are stopped",
    "kraft.kafka_data.export": "writes the folders of clusters that are stopped",
    "kraft.kafka_data.importing": "writes the folders of clusters that are stopped",
    "kraft.kafka_data.log_directory": "writes the folders of clusters that are stopped",
    "kraft.launcher": "starts nodes as processes of this machine",
    "kraft.client": "transport of programs that are no nodes",
    "kraft.testing": "runs clusters inside other people's tests",
    "kraft.chaos": "breaks clusters on purpose, from outside",
    "kraft.node.process": "the process of a node: its signals, limits and exit code",
    "kraft.__main__": "entry point of the command line",
}
"""Where the world outside may be touched, with the reason."""

_CLOCK = "environment.clock"
_RNG = "environment.rng"
_FILES = "environment.files"
_NETWORK = "environment.network"
_WORKERS = "environment.workers.run"

BANNED_MODULES: Mapping[str, str] = {
    "time": _CLOCK,
    "secrets": f"{_RNG}.randbytes",
    "shutil": _FILES,
    "tempfile": _FILES,
    "glob": f"{_FILES}.list_directory",
    "fcntl": f"{_FILES}.lock_directory",
    "socket": _NETWORK,
    "selectors": _NETWORK,
    "ssl": _NETWORK,
    "threading": f"one owner per state, or {_WORKERS}",
    "multiprocessing": _WORKERS,
    "concurrent.futures": _WORKERS,
    "subprocess": "kraft.launcher",
    "signal": "kraft.cli or kraft.runtime",
}
"""Modules that may not be imported at all."""

BANNED_CALLS: Mapping[str, str] = {
    "open": f"{_FILES}.open",
    "input": "kraft.cli",
    "datetime.now": f"{_CLOCK}.wall_ms",
    "datetime.utcnow": f"{_CLOCK}.wall_ms",
    "datetime.today": f"{_CLOCK}.wall_ms",
    "date.today": f"{_CLOCK}.wall_ms",
    "uuid.uuid1": f"uuid.UUID(bytes={_RNG}.randbytes(16), version=4)",
    "uuid.uuid4": f"uuid.UUID(bytes={_RNG}.randbytes(16), version=4)",
    "asyncio.sleep": f"{_CLOCK}.sleep",
    "asyncio.wait_for": f"async with {_CLOCK}.timeout",
    "asyncio.timeout": f"{_CLOCK}.timeout",
    "asyncio.timeout_at": f"{_CLOCK}.timeout",
    "asyncio.to_thread": _WORKERS,
    "asyncio.open_connection": f"{_NETWORK}.connect",
    "asyncio.start_server": f"{_NETWORK}.listen",
    "asyncio.run": "kraft.runtime",
}
"""Dotted calls, matched by their last two names, with what to use instead."""

BANNED_METHODS: Mapping[str, str] = {
    "run_in_executor": _WORKERS,
    "call_later": f"{_CLOCK}.call_later",
    "call_at": f"{_CLOCK}.call_later",
    "create_server": f"{_NETWORK}.listen",
    "create_connection": f"{_NETWORK}.connect",
    "read_text": _FILES,
    "read_bytes": _FILES,
    "write_text": _FILES,
    "write_bytes": _FILES,
    "unlink": f"{_FILES}.remove",
    "rmdir": f"{_FILES}.remove_tree",
    "mkdir": f"{_FILES}.make_directories",
    "iterdir": f"{_FILES}.list_directory",
}
"""Methods banned whatever the receiver, unless it is the environment's own."""

OS_ALLOWED = ("fspath", "strerror", "path")
RANDOM_ALLOWED = ("Random",)
HIDING_MODULES = ("os", "random")
"""Modules of which some members are allowed."""
"""`random.Random` as a type and seeded generator; every function of the module shares hidden state."""

THIRD_PARTY: Mapping[str, tuple[str, ...]] = {
    "pysyncobj": ("metadata.quorum",),
    "aiohttp": ("kraft.http", "kraft.client"),
    "kio": ("the tests",),
    "aiokafka": (
        "kraft.protocol.batches",
        "kraft.chaos.workload.kafka_client",
        "kraft.chaos.workload.kafka_group_client",
        "kraft.chaos.workload.kafka_transaction_client",
    ),
    "cramjam": ("kraft.protocol.batches",),
    "re2": ("kraft.coordinators.groups",),
    "crc32c": ("kraft.protocol.batches", "replication.storage"),
    "typer": ("kraft.cli", "kraft.launcher"),
    "click": ("kraft.cli", "kraft.launcher"),
    "rich": ("kraft.cli", "kraft.launcher"),
    "uvloop": ("kraft.runtime", "kraft.node", "kraft.chaos", "kraft.testing"),
    "prometheus_client": ("kraft.http",),
    "setproctitle": ("kraft.launcher",),
}
"""Each dependency is imported by its own folder only. Pydantic and msgspec may be used anywhere."""

ENTRY_POINTS = (
    "kraft.cli.main",
    "kraft.__main__",
    "kraft.launcher.fork_process",
    "kraft.testing.fault_server",
    "kraft.testing.plugin",
)
"""Modules that nothing has to import."""


def touches_outside(module: Module) -> Iterator[str]:
    if is_inside(module.name, tuple(OUTSIDE_FOLDERS)):
        return
    for imported in module.nodes(ast.Import, ast.ImportFrom):
        yield from _banned_imports(module, imported)
    for attribute in module.nodes(ast.Attribute):
        yield from _banned_attribute(module, attribute)
    for call in module.nodes(ast.Call):
        yield from _banned_call(module, call)


def _banned_imports(module: Module, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
    for name in names:
        for banned, instead in BANNED_MODULES.items():
            if is_inside(name, (banned,)):
                yield _complaint(module, node, f"import {name}", instead)
    if isinstance(node, ast.ImportFrom):
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            instead = BANNED_CALLS.get(full) or _banned_member(full)
            if instead:
                yield _complaint(module, node, f"from {node.module} import {alias.name}", instead)


def _banned_attribute(module: Module, node: ast.Attribute) -> Iterator[str]:
    """`os.x` and `random.x` even without a call: passing the function on is the same."""
    if _root(node) not in HIDING_MODULES:
        return
    instead = _banned_member(_dotted(node))
    if instead:
        yield _complaint(module, node, _dotted(node), instead)


def _root(node: ast.expr) -> str:
    """The `a` of `a.b.c` and of `a.b().c`."""
    while isinstance(node, ast.Attribute | ast.Call):
        node = node.value if isinstance(node, ast.Attribute) else node.func
    return node.id if isinstance(node, ast.Name) else ""


def _banned_member(full: str) -> str | None:
    root, _, member = full.partition(".")
    if root == "os" and member.split(".")[0] not in OS_ALLOWED:
        return f"{_FILES}, or {_RNG} for os.urandom"
    if full.startswith("os.path.") and member.split(".")[-1] in ("exists", "isdir", "isfile", "getsize", "realpath"):
        return _FILES
    if root == "random" and member and member not in RANDOM_ALLOWED:
        return _RNG
    return None


def _banned_call(module: Module, node: ast.Call) -> Iterator[str]:
    name = _dotted(node.func)
    instead = BANNED_CALLS.get(".".join(name.split(".")[-2:]))
    if instead:
        yield _complaint(module, node, f"{name}()", instead)
    if not isinstance(node.func, ast.Attribute):
        return
    receiver = _dotted(node.func.value).split(".")[-1].lstrip("_")
    if node.func.attr in BANNED_METHODS and receiver not in ("clock", "environment", "files", "network"):
        yield _complaint(module, node, f"{name}()", BANNED_METHODS[node.func.attr])
    if node.func.attr == "time" and receiver.endswith("loop"):
        yield _complaint(module, node, f"{name}()", f"{_CLOCK}.monotonic_ms")


def _dotted(node: ast.expr) -> str:
    """`a.b.c` as text; what is no plain name counts as `?`."""
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    if isinstance(node, ast.Call):
        return _dotted(node.func)
    return node.id if isinstance(node, ast.Name) else "?"


def _complaint(module: Module, node: ast.AST, what: str, instead: str) -> str:
    return f"{module.path}:{getattr(node, 'lineno', 0)}: {what} is banned here; use {instead}"


def long_functions(module: Module) -> Iterator[str]:
    for node in module.nodes(ast.FunctionDef, ast.AsyncFunctionDef):
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if lines > FUNCTION_LINES_MAX:
            yield f"{module.path}:{node.lineno}: {node.name} has {lines} lines, {FUNCTION_LINES_MAX} at most"


def foreign_imports(module: Module) -> Iterator[str]:
    for name in sorted({name.split(".")[0] for name in imported_names(module)}):
        folders = THIRD_PARTY.get(name)
        if folders is not None and not is_inside(module.name, folders):
            yield f"{module.path} imports {name}, which only {' and '.join(folders)} may"


def prints(module: Module) -> Iterator[str]:
    if is_inside(module.name, ("kraft.cli", "kraft.launcher", "kraft.__main__")):
        return
    for node in module.nodes(ast.Call):
        if isinstance(node.func, ast.Name) and node.func.id == "print":
            yield f"{module.path}:{node.lineno}: print() belongs to kraft.cli; use logging"


def unsafe_python(module: Module) -> Iterator[str]:
    """What is in the folder where a person works is no code of ours."""
    safe = {
        id(node.elts[0])
        for node in module.nodes(ast.List, ast.Tuple)
        if [getattr(each, "value", None) for each in node.elts[1:2]] == ["-P"]
    }
    for node in module.nodes(ast.Attribute):
        if node.attr == "executable" and _dotted(node) == "sys.executable" and id(node) not in safe:
            yield _complaint(module, node, "sys.executable without -P", "kraft.launcher.python.PYTHON")


def missing_docstring(module: Module) -> Iterator[str]:
    if module.tree.body and not ast.get_docstring(module.tree):
        yield f"{module.path} does not say what it owns: give it a docstring"


def unfinished(module: Module) -> Iterator[str]:
    for number, line in enumerate(module.text.splitlines(), 1):
        if any(word in line for word in ("TODO", "FIXME", "XXX", "NotImplementedError")):
            yield f"{module.path}:{number}: unfinished work: {line.strip()}"


def strings(module: Module) -> Iterator[str]:
    for node in module.nodes(ast.Constant):
        if isinstance(node.value, str):
            yield node.value


def dead_modules(modules: Sequence[Module]) -> Iterator[str]:
    imported = {name for module in modules for name in imported_names(module) if name != module.name}
    imported |= {text for module in modules for text in strings(module)}  # of tables that are imported when needed
    for module in modules:
        if not module.is_package and module.name not in imported and module.name not in ENTRY_POINTS:
            yield f"{module.path} is imported by no module of the product: remove it, or make it an entry point"
