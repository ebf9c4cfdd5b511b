"""The Go clients franz-go, sarama and segmentio/kafka-go against three nodes.

    python -m tests.clients.golang [--bootstrap HOST:PORT,...] [--cache FOLDER]

Needs Go; the versions stand in go.mod. Each program administers a topic, writes records of all codecs, reads them as a
group, and compares every record.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from tests.clients.scripts import Steps, cluster, end, parser, run_program

HERE = Path(__file__).parent
PROGRAMS = ("franz", "sarama", "segmentio")
BUILD_S = 600


def main() -> None:
    asked = parser(__doc__).parse_args()
    asked.cache.mkdir(parents=True, exist_ok=True)
    steps = Steps("Go")
    with cluster(asked.bootstrap) as bootstrap:
        for name in PROGRAMS:
            steps.run(_Program(name, asked.cache / f"go-{name}", bootstrap))
    end(steps.verdict())


class _Program:
    def __init__(self, name: str, binary: Path, bootstrap: str) -> None:
        self.__name__ = name
        self._binary, self._bootstrap = binary, bootstrap

    def __call__(self) -> None:
        run_program(["go", "build", "-o", self._binary, f"./{self.__name__}"], folder=HERE, timeout_s=BUILD_S)
        output = run_program([self._binary, self._bootstrap, f"{self.__name__}-{uuid.uuid4().hex[:8]}"])
        assert "ok 5000 records" in output, output


if __name__ == "__main__":
    main()
