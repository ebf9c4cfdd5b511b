"""kaskade, a user interface in the terminal, against three nodes.

    python -m tests.clients.kaskade [--bootstrap HOST:PORT,...] [--cache FOLDER]

pip fetches it into an environment of its own. Its page of topics has to show what was written and who reads it, its
page of records the records.
"""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any

import confluent_kafka
from confluent_kafka.admin import AdminClient, NewTopic

from tests.clients.scripts import Steps, cluster, end, parser, run_program

VERSION = "5.1.0"
PILOT = Path(__file__).parent / "pilot.py"
INSTALL_S = 600
RECORDS = 20
WAIT_S = 60


def main() -> None:
    asked = parser(__doc__).parse_args()
    python = fetch(asked.cache / f"kaskade-{VERSION}")
    steps = Steps(f"kaskade {VERSION}")
    with cluster(asked.bootstrap) as bootstrap:

        def pages() -> None:
            look_at_pages(python, bootstrap)

        steps.run(pages)
    end(steps.verdict())


def fetch(folder: Path) -> Path:
    python = folder / "bin" / "python"
    if not python.exists():
        run_program([sys.executable, "-m", "venv", folder])
    run_program([python, "-m", "pip", "install", "-q", f"kaskade=={VERSION}"], timeout_s=INSTALL_S)
    return python


def look_at_pages(python: Path, bootstrap: str) -> None:
    topic = f"kaskade-{uuid.uuid4().hex[:8]}"
    wanted = write(bootstrap, topic)
    read(bootstrap, topic)
    output = run_program([python, PILOT, bootstrap, topic], timeout_s=3 * WAIT_S)
    row, records = (json.loads(line) for line in output.splitlines() if line.startswith("["))
    assert row[:1] == [topic], row
    numbers = [cell.removeprefix("≈") for cell in row[1:8]]
    assert numbers == ["3", "3", "3", "1", "0", str(RECORDS), "0"], row
    assert records, output
    shown = [" ".join(record) for record in records]
    assert all(any(value in line for line in shown) for value in wanted), (wanted, shown)


def write(bootstrap: str, topic: str) -> list[str]:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, num_partitions=3, replication_factor=3)])[topic].result(timeout=WAIT_S)
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap})
    values = [f"value-{number}-äöü" for number in range(RECORDS)]
    for number, value in enumerate(values):
        producer.produce(topic, key=f"key-{number}", value=value)
    assert producer.flush(WAIT_S) == 0
    return values


def read(bootstrap: str, topic: str) -> None:
    """By a group, which the page of topics counts."""
    config: dict[str, Any] = {"bootstrap.servers": bootstrap, "group.id": f"{topic}-group"}
    consumer = confluent_kafka.Consumer({**config, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    messages: list[Any] = []
    while len(messages) < RECORDS:
        found = consumer.consume(RECORDS - len(messages), timeout=WAIT_S)
        assert found, len(messages)
        messages += found
    consumer.commit(asynchronous=False)
    consumer.close()


if __name__ == "__main__":
    main()
