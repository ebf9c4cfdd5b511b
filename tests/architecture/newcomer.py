"""Where somebody who knows Kafka looks first: 38 things, each with the file that has it and a name in that file.

    python -m tests.architecture.newcomer

prints the table. A test fails when a file or a name is not there any more: then
the path changes here, and the commit explains why a reader would look first at the new place.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
ANSWERS: Final = {
    "ISR shrink": "replication/partition/isr.py",
    "high watermark": "replication/partition/high_watermark.py",
    "leader epoch cache": "replication/storage/leader_epochs.py LeaderEpochCache",
    "unclean election": "metadata/controller/decide/elections.py learn_log_ends",
    "fetch session": "replication/sessions/cache.py",
    "group rebalance": "kraft/coordinators/groups/classic_rebalance.py",
    "transaction state": "kraft/coordinators/transactions/state.py Transaction",
    "purgatory": "replication/purgatory.py",
    "log validator": "replication/log_validator.py",
    "log recovery": "replication/storage/recovery.py",
    "controller failover": "metadata/controller/active.py",
    "broker registration": "metadata/controller/decide/brokers.py",
    "fencing of brokers": "metadata/controller/decide/brokers.py",
    "CRC check of a batch": "kraft/protocol/batches/header.py computed_crc",
    "REST produce route": "kraft/http/v2/produce.py produce_to_topic",
    "cluster.toml parsing": "kraft/config/parse.py",
    "launcher": "kraft/launcher/up.py",
    "pytest plugin": "kraft/testing/plugin.py",
    "checkers of scenarios": "kraft/chaos/checkers/check.py",
    "proxy link": "kraft/chaos/worlds/processes/proxy/link.py",
    "the simulation's clock": "kraft/chaos/worlds/simulated/clock.py",
    "compaction": "replication/storage/cleaner.py",
    "retention": "replication/storage/retention.py",
    "producer id blocks": "metadata/controller/decide/producer_ids.py",
    "reassignment": "metadata/controller/decide/reassignment.py",
    "replica placement": "metadata/controller/decide/placement.py",
    "ApiVersions": "kraft/wire/api_versions.py client_versions",
    "CreateTopics": "kraft/wire/handlers/topics.py",
    "metrics": "kraft/http/metrics.py Metrics",
    "last stable offset": "replication/producers/state.py",
    "offset index": "replication/storage/indexes.py",
    "preferred election": "metadata/controller/decide/elections.py",
    "broker metadata cache": "kraft/broker/metadata_publisher.py MetadataPublisher",
    "advertised listeners": "kraft/wire/handlers/endpoints.py",
    "follower truncation": "replication/fetcher/follower.py",
    "offset commit": "kraft/coordinators/groups/offsets.py",
    "ListOffsets": "kraft/wire/handlers/offsets.py",
    "delayed produce": "replication/manager/delayed_produce.py",
}


def missing() -> Iterator[str]:
    """The things that are not at their path, one line each."""
    for thing, answer in ANSWERS.items():
        path, _, name = answer.partition(" ")
        if not (ROOT / path).is_file():
            yield f"{thing}: there is no {path}"
        elif name and name not in (ROOT / path).read_text(encoding="utf-8"):
            yield f"{thing}: {path} has no {name}"


def main() -> None:
    width = max(map(len, ANSWERS))
    for thing, answer in ANSWERS.items():
        print(f"{thing:<{width}}  {answer}")
    sys.exit("\n".join(missing()) or 0)


if __name__ == "__main__":
    main()
