"""A soak of clients that pipeline transactions, while nodes are killed and paused and the clients killed: exactly once?

    python -m tests.clients.soak --minutes 60 [--seed 1] [--rate 40] [--secure] [--only NAME ...] [--cache FOLDER]
        [--keep FOLDER]

Each row has a writer, and a group of two instances that copy what it writes to another topic, in transactions of which
some are aborted on purpose:

    librdkafka-consumer   group.protocol=consumer (KIP-848), several batches for each partition in flight
    librdkafka-classic    the same with group.protocol=classic
    franz-go              five produce requests in flight (needs Go)

With --secure the nodes run as `kraft up --secure` starts them, and all clients log in over SASL_SSL.

At the end all that was written has to be among the committed records of the copy, once. The exit code is 1 when a
record is lost or there twice, when an instance ended with an error that a broker may not give to a client that does
everything right, when a row stands still although the cluster is whole, or when the cluster does not become whole.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from tests.clients.exactly_once import (
    DEADLINE_S,
    Instance,
    committed_values,
    difference,
    running,
    write,
)
from tests.clients.golang.transactions import built
from tests.clients.login import Login, client_folder, login_of
from tests.clients.scripts import SETTINGS, Steps, end, parser
from tests.integration.conftest import run_cluster
from tests.integration.support.cluster import Cluster
from tests.integration.support.waiting import NotYet, wait_until

PARTITIONS = 4
INSTANCES = 2
INSTANCE_DIES_EVERY_S = 30.0
LOOK_S = 20.0
STRIKE_EVERY_S = (1.0, 8.0)
PAUSE_S = (0.5, 12.0)
"""Shorter and longer than a session."""
KILL_SHARE = 0.6
STANDS_STILL_S = 180.0
"""A row that commits nothing for so long, while one node at most is away, is stuck."""
SESSION_MS = 6_000
OWN_SETTINGS = {
    **SETTINGS,
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1_000,
    "group.consumer.min.session.timeout.ms": SESSION_MS,
    "group.consumer.session.timeout.ms": SESSION_MS,
    "group.consumer.min.heartbeat.interval.ms": 500,
    "group.consumer.heartbeat.interval.ms": 1_000,
}

COPIER = (sys.executable, "-m", "tests.clients.copier")


@dataclass(frozen=True)
class Kind:
    """`program BOOTSTRAP SOURCE SINK GROUP TRANSACTIONAL_ID further [CLIENT]`"""

    program: Callable[[Path], tuple[str, ...]]
    """Of the folder where what is built is kept."""
    further: tuple[str, ...] = ()


KINDS: Mapping[str, Kind] = {
    "librdkafka-consumer": Kind(lambda _: COPIER, ("consumer",)),
    "librdkafka-classic": Kind(lambda _: COPIER, ("classic",)),
    "franz-go": Kind(lambda cache: (str(built(cache)),)),
}


class Row:
    def __init__(self, name: str, program: tuple[str, ...], cluster: Cluster, folder: Path) -> None:
        self.name, self.written = name, 0
        self._bootstrap = ",".join(node.kafka for node in cluster.nodes)
        self._source, self._sink, group = (f"{each}-{name}" for each in ("source", "sink", "group"))
        for topic in (self._source, self._sink):
            cluster.create_topic(topic, partitions=PARTITIONS)
        client = client_folder(cluster)
        self._login = login_of(client)
        commit_beginnings(self._bootstrap, group, self._source, self._login)
        further = [*KINDS[name].further, *([] if client is None else [str(client)])]
        self.instances = [
            Instance(
                [*program, self._bootstrap, self._source, self._sink, group, f"{group}-{number}", *further],
                folder / f"{name}-{number}.log",
                dies_every_s=INSTANCE_DIES_EVERY_S + 7 * number,
            )
            for number in range(INSTANCES)
        ]
        self._seen, self._seen_s = "", time.monotonic()

    def write_until(self, is_over: threading.Event, *, rate: float) -> None:
        def values() -> Iterator[bytes]:
            while not is_over.is_set():
                self.written += 1
                yield b"%d" % self.written
                time.sleep(1 / rate)

        write(self._bootstrap, self._source, values(), partitions=PARTITIONS, login=self._login)

    def check(self) -> None:
        """Raises AssertionError when it goes on no more, or one of its instances ended as none may."""
        fatal = [each for instance in self.instances for each in instance.fatal]
        assert not fatal, fatal
        reported, now_s = self.reported(), time.monotonic()
        if reported != self._seen:
            self._seen, self._seen_s = reported, now_s
        assert now_s - self._seen_s < STANDS_STILL_S, [reported, *(instance.reported() for instance in self.instances)]

    def judge(self) -> None:
        """Waits until all is copied. Raises AssertionError when it does not come, or a record is there twice."""
        wanted = Counter(b"%d" % number for number in range(1, self.written + 1))

        def is_copied() -> bool:
            values = committed_values(self._bootstrap, self._sink, partitions=PARTITIONS, login=self._login)
            found = Counter(values)
            assert not found - wanted, difference(found, wanted)
            if found != wanted:
                raise NotYet(difference(found, wanted), [instance.reported() for instance in self.instances])
            return True

        wait_until(is_copied, deadline_s=DEADLINE_S, what=f"the copies of {self.name}")
        self.check()

    def reported(self) -> str:
        return "; ".join(f"{each.committed()} in {each.starts} lives" for each in self.instances)

    def given_up(self) -> int:
        return sum(instance.given_up for instance in self.instances)


def commit_beginnings(bootstrap: str, group: str, topic: str, login: Login) -> None:
    """So that no member ever asks where a partition begins: librdkafka takes a late answer to that for its position."""
    settings = {**login, "bootstrap.servers": bootstrap, "group.id": group, "log_level": 0}
    with closing(Consumer(settings)) as consumer:
        consumer.commit(offsets=[TopicPartition(topic, number, 0) for number in range(PARTITIONS)], asynchronous=False)


class Strikes:
    """One node at a time is killed with -9 or paused, and is back before the next one."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self._cluster, self._rng = cluster, random.Random(f"transactional soak {seed}")
        self.counts = Counter[str]()
        self.failure: BaseException | None = None

    def run(self, is_over: threading.Event) -> None:
        try:
            while not is_over.wait(self._rng.uniform(*STRIKE_EVERY_S)):
                self._strike(self._rng.choice(self._cluster.ids), is_over)
        except BaseException as failure:  # noqa: BLE001 - the main thread raises it
            self.failure = failure

    def _strike(self, node_id: int, is_over: threading.Event) -> None:
        if self._rng.random() < KILL_SHARE:
            self.counts["kill -9"] += 1
            self._cluster.kill(node_id)
        else:
            self.counts["pause"] += 1
            self._cluster.pause(node_id)
            is_over.wait(self._rng.uniform(*PAUSE_S))
        self._cluster.heal()


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--minutes", type=float, default=5.0, help="of strikes (default: %(default)s)")
    arguments.add_argument("--seed", type=int, default=1, help="of the strikes (default: %(default)s)")
    arguments.add_argument("--rate", type=float, default=40.0, help="records/s of each row (default: %(default)s)")
    arguments.add_argument("--secure", action="store_true", help="TLS, users and ACLs; the clients log in")
    arguments.add_argument("--keep", type=Path, help="where data folders and logs of a run that is wrong are moved to")
    arguments.add_argument("--only", nargs="+", choices=sorted(KINDS), default=list(KINDS), help="these rows")
    asked = arguments.parse_args()
    if asked.bootstrap is not None:
        arguments.error("--bootstrap: nodes are killed here, so they have to be the script's own")
    programs = {name: KINDS[name].program(asked.cache) for name in asked.only}
    steps = Steps("transactional soak")
    with tempfile.TemporaryDirectory(prefix="kraft-soak-") as made:
        folder = Path(made)
        for cluster in run_cluster(folder, settings=OWN_SETTINGS, secure=asked.secure):
            rows = [Row(name, program, cluster, folder) for name, program in programs.items()]
            soak(cluster, rows, steps, seconds=asked.minutes * 60, rate=asked.rate, seed=asked.seed)
        code = steps.verdict()
        if code and asked.keep is not None:
            print("kept:", kept(folder, asked.keep, seed=asked.seed), flush=True)
    end(code)


def kept(folder: Path, where: Path, *, seed: int) -> Path:
    """A copy of the folder of a run, in a new folder of `where`."""
    place = where / f"seed-{seed}-{time.strftime('%H%M%S')}"
    shutil.copytree(folder, place, symlinks=True, ignore=shutil.ignore_patterns("*.sock"))
    return place


def soak(cluster: Cluster, rows: list[Row], steps: Steps, *, seconds: float, rate: float, seed: int) -> None:
    is_over, strikes = threading.Event(), Strikes(cluster, seed)
    threads = [threading.Thread(target=strikes.run, args=(is_over,))]
    threads += [threading.Thread(target=row.write_until, args=(is_over,), kwargs={"rate": rate}) for row in rows]
    with running([instance for row in rows for instance in row.instances]):
        for thread in threads:
            thread.start()

        def clients_go_on_while_nodes_are_struck() -> None:
            try:
                watch(rows, strikes, seconds)
            finally:
                is_over.set()
                for thread in threads:
                    thread.join()

        steps.run(clients_go_on_while_nodes_are_struck)
        cluster.heal()
        for row in rows:

            def each_record_is_copied_once(row: Row = row) -> None:
                print(f"{row.name}: {row.written:,} written; {row.reported()}, {row.given_up()} gave up", flush=True)
                row.judge()

            each_record_is_copied_once.__name__ = f"{row.name}: each record is copied once"
            steps.run(each_record_is_copied_once)


def watch(rows: list[Row], strikes: Strikes, seconds: float) -> None:
    """Raises AssertionError as soon as something is wrong that the end need not be waited for."""
    begun_s = time.monotonic()
    while (gone_s := time.monotonic() - begun_s) < seconds:
        time.sleep(min(LOOK_S, seconds - gone_s))
        reported = " | ".join(f"{row.name}: {row.written:,} written, {row.reported()}" for row in rows)
        print(f"{gone_s:6.0f} s  {dict(strikes.counts)}  {reported}", flush=True)
        assert strikes.failure is None, strikes.failure
        for row in rows:
            row.check()


if __name__ == "__main__":
    main()
