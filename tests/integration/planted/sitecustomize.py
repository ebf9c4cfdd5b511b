"""Python imports a module of this name when it starts, from the first folder of its path that has one.

A test that puts this folder on PYTHONPATH, and a name into KRAFT_TEST_PLANTED, so plants a bug into every node that it
starts; other processes (the runner's proxies) stay as they are. Without the variables nothing of this is ever loaded.
"""

from __future__ import annotations

import os
import sys

NODE = "node"

if "KRAFT_TEST_PLANTED" in os.environ and NODE in sys.orig_argv:
    from tests.integration.planted.bugs import plant

    plant(os.environ["KRAFT_TEST_PLANTED"])

if "KRAFT_TEST_HANGS" in os.environ and NODE in sys.orig_argv:
    from tests.integration.planted import hangs

    hangs.plant(os.environ["KRAFT_TEST_HANGS"])
