"""Where the tests and all that they start keep compiled code when Python is told not to write it beside the sources.

A cluster of three is three times the whole product. With PYTHONDONTWRITEBYTECODE each node and each command compiles
it anew, a third of what its start costs; pytest's workers rewrite every assertion anew.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1] / ".pytest_cache" / "bytecode"


def keep() -> None:
    """Of this process and those that inherit its environment. Nothing is written beside the sources."""
    if sys.dont_write_bytecode:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = str(FOLDER)
        sys.dont_write_bytecode = False
