"""The start of Python for each process of ours, in whatever folder.

`python -m` puts the current folder first on the path of modules: a `secrets.py` there would be run instead of the
standard library's, a `metadata.py` instead of ours. `-P` leaves it out. `-I` would also ignore PYTHONPATH, by which
people add modules on purpose: of its folders only those are left out that would hide such a module.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from typing import Final

PYTHON: Final = (sys.executable, "-P")
OURS: Final = frozenset(("kraft", "metadata", "replication"))
"""Packages of this distribution."""
_HOME: Final = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))


def environment() -> dict[str, str]:
    """The environment of our processes: this process's own, without folders in PYTHONPATH that hide one of our
    modules."""
    path = os.environ.get("PYTHONPATH", "")
    variables = dict(os.environ)
    if path:
        variables["PYTHONPATH"] = _without_hiding(path)
        if not variables["PYTHONPATH"]:
            del variables["PYTHONPATH"]
    return variables


@lru_cache(16)
def _without_hiding(path: str) -> str:
    return os.pathsep.join(folder for folder in path.split(os.pathsep) if folder and not _hides(folder))


def _hides(folder: str) -> bool:
    try:
        entries = os.listdir(folder)
    except OSError:
        return False
    if os.path.realpath(folder) == _HOME:
        return False
    modules = {entry.removesuffix(".py") for entry in entries if entry.endswith(".py")}
    packages = {entry for entry in entries if entry in OURS and os.path.isdir(os.path.join(folder, entry))}
    return bool(packages or modules & (OURS | sys.stdlib_module_names))
