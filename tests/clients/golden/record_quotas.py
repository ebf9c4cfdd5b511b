"""Record what Apache Kafka answers to clients beyond their quotas: one broker of it from Maven Central.

    python -m tests.clients.golden.record_quotas [--libs FOLDER] [--out FILE] [--compare]

Needs `mvn` and Java 17 or newer, and half a minute. With --compare FILE stays as it is, and what differs from it is
printed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests.clients.golden.files import KAFKA_VERSION
from tests.clients.golden.quotas import TABLE, differences, play, read, write
from tests.clients.golden.record import fetch_jars, kafka


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--libs", type=Path, default=Path(tempfile.gettempdir()) / f"kafka-{KAFKA_VERSION}-libs")
    arguments.add_argument("--out", type=Path, default=TABLE)
    arguments.add_argument("--compare", action="store_true", help="only print what differs from the file")
    asked = arguments.parse_args()
    fetch_jars(asked.libs)
    with kafka(asked.libs) as port:
        rows = play(("127.0.0.1", port))
    if asked.compare:
        found = differences(rows, read(asked.out))
        sys.stdout.write("".join(f"{name}: {text}\n" for name, text in found.items()) or "no difference\n")
        sys.exit(1 if found else 0)
    head = (
        f"What Apache Kafka {KAFKA_VERSION} answers to clients beyond their quotas, recorded by",
        "    python -m tests.clients.golden.record_quotas",
        "API and version, what is asked (tests/clients/golden/quotas.py): the codes of all items with their texts, the",
        "wait in the answer in seconds, and whether what the client sends next is answered meanwhile.",
    )
    write(rows, head, asked.out)
    sys.stdout.write(f"{len(rows)} answers in {asked.out}\n")


if __name__ == "__main__":
    os.umask(0o077)
    main()
