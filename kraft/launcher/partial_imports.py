"""Loading of a node's modules without the clients of the libraries that a node uses only partly.

`import aiokafka.record` runs `aiokafka/__init__.py` first, which loads producer, consumer and client; `import
aiohttp.web` loads the HTTP client, which reads the system's certificates. Together they are a fifth of the processor
time that the modules of a node take, and a node uses neither. Here the packages are entered as plain folders of
modules.

`dataclasses` of Python 3.11 and 3.12 writes six methods of each frozen class as text and compiles them one by one, a
quarter of the modules' time. A node calls three of these only for error messages: `__repr__`, and the refusals of
`__setattr__` and `__delattr__`. Here they are closures that do the same.

Both are left out with `KRAFT_LEAN_LOADING=off`; docs/decisions/interpreter-tricks.md has their measured effect.

For processes that are only nodes: a later import of one of these packages in such a process finds its modules, and not
the names of its `__init__`.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib.util
import os
import re
import reprlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

LEAN_LOADING: Final = "KRAFT_LEAN_LOADING"
"""A variable of the environment; with `off` packages are loaded whole, and `dataclasses` is unchanged."""
FOLDERS: Final = ("aiohttp", "aiokafka", "aiokafka.record")
_VERSION: Final = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)


@contextmanager
def loading_a_node() -> Iterator[None]:
    """Context in which the modules of a node are imported. Their objects stay: no garbage collection looks at them."""
    is_lean = os.environ.get(LEAN_LOADING) != "off"
    for name in FOLDERS:
        if is_lean and name not in sys.modules:
            sys.modules[name] = _folder(name)
    was_enabled = gc.isenabled()
    gc.disable()
    methods = _replace(dataclasses, _METHODS) if is_lean and sys.version_info < (3, 13) else {}
    try:
        yield
    finally:
        _replace(dataclasses, methods)
        gc.freeze()
        if was_enabled:
            gc.enable()


def _folder(name: str) -> ModuleType:
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"{name} is not installed"
    assert spec.origin is not None
    assert spec.submodule_search_locations is not None
    module = ModuleType(name, "Entered by kraft.launcher.partial_imports without its __init__.")
    module.__spec__, module.__file__, module.__path__ = spec, spec.origin, list(spec.submodule_search_locations)
    version = _VERSION.search(Path(spec.origin).read_text(encoding="utf-8"))
    if version is not None:  # modules of aiohttp send it
        module.__dict__["__version__"] = version[1]
    return module


def _replace(module: ModuleType, replacements: Mapping[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """Replace functions of a module; return the previous ones."""
    before = {name: getattr(module, name) for name in replacements}
    for name, replacement in replacements.items():
        setattr(module, name, replacement)
    return before


# --- methods of data classes that are called rarely ------------------------------------------------------------------


def _repr(fields: Sequence[dataclasses.Field[Any]], _: Mapping[str, Any]) -> Callable[[Any], str]:
    names = [field.name for field in fields]

    @reprlib.recursive_repr()
    def __repr__(self: Any) -> str:  # noqa: N807
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{self.__class__.__qualname__}({shown})"

    return __repr__


def _refusals(
    cls: Any, fields: Sequence[dataclasses.Field[Any]], _: Mapping[str, Any]
) -> tuple[Callable[[Any, str, Any], None], Callable[[Any, str], None]]:
    names = frozenset(field.name for field in fields)

    def __setattr__(self: Any, name: str, value: Any) -> None:  # noqa: N807
        if type(self) is cls or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
        super(cls, self).__setattr__(name, value)

    def __delattr__(self: Any, name: str) -> None:  # noqa: N807
        if type(self) is cls or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
        super(cls, self).__delattr__(name)

    return __setattr__, __delattr__


_METHODS: Final[Mapping[str, Callable[..., Any]]] = {"_repr_fn": _repr, "_frozen_get_del_attr": _refusals}
"""The functions that make methods in `dataclasses`, with the same arguments in 3.11 and 3.12."""
