"""kcat (Debian's package) against three nodes: metadata, records of all codecs, offsets, a group.

python -m tests.clients.kcat [--bootstrap HOST:PORT,...]
"""

from __future__ import annotations

import json
import uuid

from confluent_kafka.admin import AdminClient, NewTopic

from tests.clients.scripts import Steps, cluster, end, parser, run_program

RECORDS = 1_000
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


def main() -> None:
    asked = parser(__doc__).parse_args()
    steps = Steps("kcat")
    with cluster(asked.bootstrap) as bootstrap:
        kcat = Kcat(bootstrap)
        for step in (kcat.metadata, kcat.records, kcat.offsets_by_time, kcat.a_group):
            steps.run(step)
    end(steps.verdict())


class Kcat:
    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._topic = f"kcat-{uuid.uuid4().hex[:8]}"
        self._wanted: list[str] = []
        admin = AdminClient({"bootstrap.servers": bootstrap})
        for future in admin.create_topics([NewTopic(self._topic, 3, 3)]).values():
            future.result(60)

    def _kcat(self, *arguments: str, stdin: str = "") -> str:
        return run_program(["kcat", "-b", self._bootstrap, *arguments], stdin=stdin)

    def metadata(self) -> None:
        found = json.loads(self._kcat("-L", "-J", "-t", self._topic))
        assert sorted(broker["id"] for broker in found["brokers"]) == [1, 2, 3]
        (topic,) = found["topics"]
        assert [len(partition["replicas"]) for partition in topic["partitions"]] == [3, 3, 3]

    def records(self) -> None:
        for codec in CODECS:
            lines = [f"{codec}-{number}\tvalue {number} äöü" for number in range(RECORDS)]
            self._kcat("-P", "-t", self._topic, "-K", "\t", "-z", codec, "-H", f"codec={codec}", stdin="\n".join(lines))
            self._wanted += [f"{line}\tcodec={codec}" for line in lines]
        read = self._kcat("-C", "-q", "-e", "-t", self._topic, "-o", "beginning", "-f", "%k\t%s\t%h\n").splitlines()
        assert sorted(read) == sorted(self._wanted), f"{len(read)} read of {len(self._wanted)}"

    def offsets_by_time(self) -> None:
        latest = self._kcat("-Q", *(f"-t{self._topic}:{partition}:-1" for partition in range(3)))
        assert sum(int(line.rpartition(" ")[2]) for line in latest.splitlines()) == len(self._wanted), latest
        assert self._kcat("-Q", f"-t{self._topic}:0:1").strip().endswith("offset 0")

    def a_group(self) -> None:
        reading = ["-q", "-X", "auto.offset.reset=earliest", "-e", "-f", "%k\n"]
        read = self._kcat("-G", f"{self._topic}-group", *reading, self._topic).splitlines()
        assert sorted(read) == sorted(line.partition("\t")[0] for line in self._wanted), len(read)
        assert not self._kcat("-G", f"{self._topic}-group", *reading, self._topic), "all of it is committed"


if __name__ == "__main__":
    main()
