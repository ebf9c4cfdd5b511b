"""What the scripts of clients that pip does not bring share: three nodes of their own, steps, and a verdict.

`python -m tests.clients.NAME` fetches the client with its language's package manager, in the version that the script
names, runs its steps one after the other, prints a line for each, and exits with 1 if one of them failed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.integration.conftest import run_cluster
from tests.integration.support.configuration import REPLICATED

SETTINGS = {**REPLICATED, "group.initial.rebalance.delay.ms": 0, "log.segment.delete.delay.ms": 0}
STEP_S = 120
"""A program that has not ended by then is killed, and its step has failed."""


class StepFailed(AssertionError):
    pass


class Steps:
    def __init__(self, client: str) -> None:
        self._client = client
        self._failed: list[str] = []
        self._count = 0

    def run(self, step: Callable[..., None], *arguments: Any) -> None:
        """The name of the function is the step's. One that fails does not keep the others from running."""
        name = step.__name__.replace("_", " ")
        self._count += 1
        try:
            step(*arguments)
        except (AssertionError, LookupError, ValueError, OSError, subprocess.SubprocessError):
            self._failed.append(name)
            print(f"FAILED  {self._client}: {name}\n{traceback.format_exc()}", flush=True)
        else:
            print(f"ok      {self._client}: {name}", flush=True)

    def verdict(self) -> int:
        """The exit code."""
        print(f"{self._client}: {self._count - len(self._failed)} of {self._count} steps are as they should be")
        for name in self._failed:
            print(f"  not so: {name}")
        return 1 if self._failed else 0


def run_program(
    arguments: Sequence[str | Path],
    *,
    stdin: str = "",
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    code: int = 0,
    timeout_s: int = STEP_S,
) -> str:
    """What it writes to both of its outputs. Raises StepFailed when it ends with another exit code."""
    done = subprocess.run(
        [str(argument) for argument in arguments],
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
        cwd=folder,
        env=environment,
    )
    if done.returncode != code:
        raise StepFailed(f"exit code {done.returncode}, not {code}: {arguments}\n{done.stdout}")
    return done.stdout


def parser(description: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--bootstrap", help="a cluster that runs already; default: three nodes of the script's own")
    made.add_argument(
        "--cache",
        type=Path,
        default=Path(tempfile.gettempdir()) / "kraft-clients",
        help="where fetched packages are kept (default: %(default)s)",
    )
    return made


@contextmanager
def cluster(bootstrap: str | None) -> Iterator[str]:
    """bootstrap.servers of three nodes that are brokers and voters."""
    if bootstrap is not None:
        yield bootstrap
        return
    with tempfile.TemporaryDirectory(prefix="kraft-clients-") as folder:
        for nodes in run_cluster(Path(folder), settings=SETTINGS, log_dirs=2):
            yield ",".join(node.kafka for node in nodes.nodes)


def end(code: int) -> None:
    sys.stdout.flush()
    sys.exit(code)
