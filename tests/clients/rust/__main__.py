"""rdkafka, the Rust client on librdkafka, against three nodes.

    python -m tests.clients.rust [--bootstrap HOST:PORT,...] [--cache FOLDER]

Needs cargo, a C compiler and make, for librdkafka is built from the crate; the versions stand in Cargo.lock. The
program administers a topic, writes records of all codecs, reads them as a group, and compares every record.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from tests.clients.scripts import Steps, cluster, end, parser, run_program

HERE = Path(__file__).parent
BUILD_S = 1_800


def main() -> None:
    asked = parser(__doc__).parse_args()
    target = asked.cache / "rust"
    target.mkdir(parents=True, exist_ok=True)
    run_program(["cargo", "build", "--release", "--locked", "--target-dir", target], folder=HERE, timeout_s=BUILD_S)
    steps = Steps("Rust")

    def rdkafka() -> None:
        output = run_program([target / "release" / "kraft-clients", bootstrap, f"rdkafka-{uuid.uuid4().hex[:8]}"])
        assert "ok 5000 records" in output, output

    with cluster(asked.bootstrap) as bootstrap:
        steps.run(rdkafka)
    end(steps.verdict())


if __name__ == "__main__":
    main()
