"""Loads what a node needs, and not the clients of the libraries that it needs a part of.

`import aiokafka.record` runs `aiokafka/__init__.py` first, which loads producer, consumer and client; `import
aiohttp.web` loads the HTTP client, which reads the system's certificates. Together they are a fifth of the processor
time that the modules of a node take, and a node uses neither. Here the packages are entered as plain folders of
modules.

For processes that are nodes and nothing else: whoever imports one of these packages in such a process later finds its
modules, and not the names that its `__init__` would have.
"""

from __future__ import annotations

import gc
import importlib.util
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Final

FOLDERS: Final = ("aiohttp", "aiokafka", "aiokafka.record")
_VERSION: Final = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)


@contextmanager
def loading_a_node() -> Iterator[None]:
    """While the modules of a node are imported. What they make stays: there is no garbage to look for."""
    for name in FOLDERS:
        if name not in sys.modules:
            sys.modules[name] = _folder(name)
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _folder(name: str) -> ModuleType:
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"{name} is not installed"
    assert spec.origin is not None
    assert spec.submodule_search_locations is not None
    module = ModuleType(name, "Entered by kraft.launcher.lean without its __init__.")
    module.__spec__, module.__file__, module.__path__ = spec, spec.origin, list(spec.submodule_search_locations)
    version = _VERSION.search(Path(spec.origin).read_text(encoding="utf-8"))
    if version is not None:  # modules of aiohttp name it in what they send
        module.__dict__["__version__"] = version[1]
    return module
