"""The whole run of `python -m tests.schemathesis`, which the CI script has as a step of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_a_strict_node_is_what_its_document_describes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.schemathesis"], check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, done.stdout.decode()[-20_000:]
