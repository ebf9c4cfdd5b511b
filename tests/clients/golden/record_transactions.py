"""Record what Apache Kafka answers about transactions, in each phase: three brokers of it from Maven Central.

    python -m tests.clients.golden.record_transactions [--libs FOLDER] [--out FILE]

Needs `mvn` and Java 17 or newer, and about two minutes. Broker 1 is asked. Broker 3 has a topic of its own and is
killed, so that markers to it are never written. Broker 2 follows broker 1, and is stopped while what stands in the log
of transactions must not be replicated; it coordinates other transactional ids, until broker 1 takes them over.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from itertools import count, repeat
from pathlib import Path
from typing import Any

from kraft.coordinators.java import abs_hash
from kraft.coordinators.transactions.records import encode_batch
from kraft.coordinators.transactions.state import Transaction
from kraft.protocol.encoding import TopLevel
from kraft.protocol.messages import add_partitions_to_txn_request as apt
from kraft.protocol.messages import alter_partition_reassignments_request as apr
from kraft.protocol.messages import create_topics_request as ct
from kraft.protocol.messages import produce_request as p
from kraft.protocol.messages import txn_offset_commit_request as toc
from kraft.protocol.messages.add_offsets_to_txn_request import AddOffsetsToTxnRequestData
from kraft.protocol.messages.describe_transactions_request import DescribeTransactionsRequestData
from kraft.protocol.messages.end_txn_request import EndTxnRequestData
from kraft.protocol.messages.init_producer_id_request import InitProducerIdRequestData
from metadata.internal_topics import OFFSETS_TOPIC, TRANSACTIONS_TOPIC
from tests.clients.golden.files import KAFKA_VERSION
from tests.clients.golden.peer import Peer
from tests.clients.golden.program import BATCHED_FROM, EPOCH_TOLD_FROM, batch
from tests.clients.golden.record import SETTINGS, fetch_jars, free_port, java, wait_until_ready
from tests.clients.golden.transactions import (
    FIRST_SEED_EPOCH,
    NOT_ASKED,
    TABLE,
    WAYS,
    Answers,
    Id,
    Story,
    Until,
    Way,
    ask_all,
    write,
)

BROKERS = (1, 2, 3)
ASKED, FOLLOWER, GONE = BROKERS
HERE, THERE = "here", "there"
GROUP = "group"
NOT_IN_IT = 2
"""The partition of `HERE` that no step adds."""
ADMIN_CLIENT = "__admin_client"
"""Kafka lets this client id alone write to internal topics."""
LOADED_AT_ONCE = 48
"""Transactional ids that are brought to a phase before their coordinator moves."""
SEEDS = 1_200
FIRST_SEED_ID = 1_000_000_000
TIMEOUT_MS, SHORT_TIMEOUT_MS = 600_000, 300
DEADLINE_S = 60
LOADING = 14


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--libs", type=Path, default=Path(tempfile.gettempdir()) / f"kafka-{KAFKA_VERSION}-libs")
    arguments.add_argument("--out", type=Path, default=TABLE)
    asked = arguments.parse_args()
    fetch_jars(asked.libs)
    with kafka(asked.libs) as (ports, servers):
        table = Recorder(ports, servers).run()
    head = (
        f"What Apache Kafka {KAFKA_VERSION} answers about transactions, recorded by",
        "    python -m tests.clients.golden.record_transactions",
        "In brackets: the steps before (tests/clients/golden/transactions.py), and how far they have come. A column is",
        "the producer that the request names: producer id p with the epoch n of the steps, or one near it; q is the",
        "producer id that came after p. An answer is an error code, 0, or the producer that is given.",
    )
    write(table, head, asked.out)
    cells = sum(cell != NOT_ASKED for answers in table.values() for row in answers.values() for cell in row.values())
    sys.stdout.write(f"{len(table)} phases, {cells} answers in {asked.out}\n")


@contextmanager
def kafka(libs: Path) -> Iterator[tuple[dict[int, int], dict[int, subprocess.Popen[bytes]]]]:
    """Three brokers, of which the first is the controller, too: their ports and processes. They are gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="golden-transactions-"))
    ports, controller_port = {number: free_port() for number in BROKERS}, free_port()
    servers: dict[int, subprocess.Popen[bytes]] = {}
    run = java(libs, heap_mib=256)
    try:
        for number, port in ports.items():
            config = folder / f"{number}.properties"
            properties = _properties(number, port, controller_port, folder)
            config.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
            formatting = [*run, "kafka.tools.StorageTool", "format", "-t", "Z29sZGVuLWdvbGRlbi1nbw", "-c", str(config)]
            subprocess.run(formatting, check=True, capture_output=True, timeout=120)
            with (folder / f"{number}.log").open("wb") as log:
                servers[number] = subprocess.Popen([*run, "kafka.Kafka", str(config)], stdout=log, stderr=log)
        for number, port in ports.items():
            wait_until_ready(port, servers[number])
        yield ports, servers
    finally:
        for server in servers.values():
            server.kill()
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _properties(number: int, port: int, controller_port: int, folder: Path) -> dict[str, str]:
    is_controller = number == ASKED
    listeners = f"PLAINTEXT://127.0.0.1:{port}"
    return {
        **SETTINGS,
        "process.roles": "broker,controller" if is_controller else "broker",
        "node.id": str(number),
        "controller.quorum.voters": f"{ASKED}@127.0.0.1:{controller_port}",
        "listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller_port}" if is_controller else listeners,
        "advertised.listeners": listeners,
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "log.dirs": str(folder / f"logs-{number}"),
        "transaction.state.log.num.partitions": "2",
        "transaction.state.log.min.isr": "1",
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "100",
        # A broker that is stopped stays in sync, and one that is gone keeps its partitions: Kafka writes no markers to
        # partitions without a leader, and calls the transaction complete.
        "replica.lag.time.max.ms": "600000",
        "broker.session.timeout.ms": "600000",
        "request.timeout.ms": "120000",
    }


class Recorder:
    def __init__(self, ports: dict[int, int], servers: dict[int, subprocess.Popen[bytes]]) -> None:
        self._ports, self._servers = ports, servers
        self._peers: dict[int, Peer] = {}
        self._numbers = count()
        self._seeds = iter(range(SEEDS))

    def run(self) -> dict[str, Answers]:
        self._prepare()
        made = {
            way: [self._taken(way, FOLLOWER) for _ in range(LOADED_AT_ONCE)]
            for way in WAYS
            if way.until is Until.LOADED
        }
        found = self._ask_while_pending()
        for stories in made.values():
            for story in stories:
                story.peer = self._peer(ASKED)
        self._move_coordinator()
        self._wait_for_coordinator(ASKED, self._name(FOLLOWER))
        for way in WAYS:
            if way.until is Until.PENDING:
                continue
            found[way.name] = ask_all(iter(made[way]) if way in made else self._new(way), is_fixed=way.is_held)
            sys.stderr.write(f"{way.name}\n")
        return {way.name: found[way.name] for way in WAYS}

    # --- before -----------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        for topic, brokers in {
            TRANSACTIONS_TOPIC: [[ASKED, FOLLOWER], [FOLLOWER, ASKED]],
            OFFSETS_TOPIC: [[ASKED]],
            HERE: [[ASKED]] * 3,
            THERE: [[GONE]] * 2,
        }.items():
            assignments = [
                ct.CreatableReplicaAssignment.make(partition_index=index, broker_ids=each)
                for index, each in enumerate(brokers)
            ]
            one = ct.CreatableTopic.make(name=topic, num_partitions=-1, replication_factor=-1, assignments=assignments)
            answer: Any = self._peer(ASKED).ask("", ct.CreateTopicsRequestData.make(topics=[one], timeout_ms=30_000), 7)
            assert [each.error_code for each in answer.topics] == [0], answer
        self._wait_for_coordinator(ASKED, self._name(ASKED))
        self._wait_for_coordinator(FOLLOWER, self._name(FOLLOWER))
        self._write_seeds()
        self._servers[GONE].kill()
        self._servers[GONE].wait()

    def _move_coordinator(self) -> None:
        """From broker 2 to broker 1."""
        partition = apr.ReassignablePartition.make(partition_index=1, replicas=[ASKED])
        topic = apr.ReassignableTopic.make(name=TRANSACTIONS_TOPIC, partitions=[partition])
        request = apr.AlterPartitionReassignmentsRequestData.make(topics=[topic], timeout_ms=30_000)
        answer: Any = self._peer(ASKED).ask("", request, 0)
        assert answer.error_code == answer.responses[0].partitions[0].error_code == 0, answer

    def _write_seeds(self) -> None:
        """Producer ids near their end, as Kafka's own log has them; broker 1 finds them when it takes over."""
        peer = Peer(("127.0.0.1", self._ports[FOLLOWER]), client_id=ADMIN_CLIENT)
        for number in range(SEEDS):
            seed = Transaction(
                transactional_id=self._seed_name(number),
                producer_id=FIRST_SEED_ID + number,
                previous_producer_id=FIRST_SEED_ID + number,
                epoch=FIRST_SEED_EPOCH,
                timeout_ms=TIMEOUT_MS,
                updated_ms=int(time.time() * 1000),
            )
            record = encode_batch([(seed.transactional_id, seed)], timestamp_ms=seed.updated_ms)
            data = [p.PartitionProduceData.make(index=1, records=record)]
            named = p.TopicProduceData.make(name=TRANSACTIONS_TOPIC, partition_data=data)
            request = p.ProduceRequestData.make(acks=1, timeout_ms=30_000, topic_data=[named])
            answer: Any = peer.ask("", request, 12)
            assert answer.responses[0].partition_responses[0].error_code == 0, answer
        peer.close()

    def _seed_name(self, number: int) -> str:
        return _name_in(lambda attempt: f"seed-{number}-{attempt}", FOLLOWER)

    def _name(self, coordinator: int) -> str:
        number = next(self._numbers)
        return _name_in(lambda attempt: f"id-{number}-{attempt}", coordinator)

    def _wait_for_coordinator(self, broker: int, name: str) -> None:
        story = StoryAtKafka(self._peer(broker), name, HERE)
        _until(lambda: story.init(None)[0] == 0, f"broker {broker} coordinates {name}")

    def _peer(self, broker: int) -> Peer:
        if broker not in self._peers:
            self._peers[broker] = Peer(("127.0.0.1", self._ports[broker]))
        return self._peers[broker]

    # --- the steps --------------------------------------------------------------------------------------------

    def _new(self, way: Way) -> Iterator[StoryAtKafka]:
        while True:
            yield self._taken(way, ASKED)

    def _taken(self, way: Way, coordinator: int) -> StoryAtKafka:
        """Without the last step of a way that is pending."""
        name = self._seed_name(next(self._seeds)) if way.is_near_end else self._name(coordinator)
        timeout_ms = SHORT_TIMEOUT_MS if "time-over" in way.steps else TIMEOUT_MS
        story = StoryAtKafka(self._peer(coordinator), name, THERE if way.is_held else HERE, timeout_ms)
        steps = way.steps.split()
        for step in steps[:-1] if way.until is Until.PENDING else steps:
            story.take(step)
        return story

    # --- the questions ----------------------------------------------------------------------------------------

    def _ask_while_pending(self) -> dict[str, Answers]:
        stories = {way: self._taken(way, ASKED) for way in WAYS if way.until is Until.PENDING}
        found: dict[str, Answers] = {}
        with ThreadPoolExecutor(len(stories)) as threads:
            self._servers[FOLLOWER].send_signal(signal.SIGSTOP)
            try:
                running = {way: threads.submit(self._last_step, way, story) for way, story in stories.items()}
                time.sleep(1)
                for way, story in stories.items():
                    found[way.name] = ask_all(repeat(story), is_fixed=True)
                    sys.stderr.write(f"{way.name}\n")
                early = [way.name for way, future in running.items() if future.done()]
            finally:
                self._servers[FOLLOWER].send_signal(signal.SIGCONT)
            for future in running.values():
                future.result()
        assert not early, f"answered before it was replicated: {early}"
        return found

    def _last_step(self, way: Way, story: StoryAtKafka) -> None:
        another = copy(story)
        another.peer = Peer(("127.0.0.1", self._ports[ASKED]))
        another.take(way.steps.split()[-1])
        another.peer.close()


class StoryAtKafka(Story):
    def __init__(self, peer: Peer, name: str, topic: str, timeout_ms: int = TIMEOUT_MS) -> None:
        """`topic` has the partitions that the steps add."""
        super().__init__()
        self.peer = peer
        self._name, self._topic, self._timeout_ms = name, topic, timeout_ms

    def let_time_pass(self) -> None:
        _until(lambda: self._described().transaction_state != "Ongoing", "the transaction is open for too long")

    def settled(self) -> int:
        if self._topic == HERE:
            _until(lambda: not self._described().transaction_state.startswith("Prepare"), "the markers are written")
        found: int = self._described().producer_id
        return found

    def _described(self) -> Any:
        request = DescribeTransactionsRequestData.make(transactional_ids=[self._name])
        return self._ask(request, 0).transaction_states[0]

    def _ask(self, request: TopLevel, version: int) -> Any:
        self.peer.exchanges.clear()
        answer = self.peer.ask("", request, version)
        assert not self.peer.broken, self.peer.broken
        return answer

    def _fields(self, producer: Id) -> dict[str, Any]:
        return {
            "transactional_id": self._name,
            "producer_id": producer.producer_id,
            "producer_epoch": producer.epoch,
        }

    def init(self, producer: Id | None) -> tuple[int, Id]:
        request = InitProducerIdRequestData.make(
            transactional_id=self._name,
            transaction_timeout_ms=self._timeout_ms,
            producer_id=-1 if producer is None else producer.producer_id,
            producer_epoch=-1 if producer is None else producer.epoch,
        )
        answer = self._ask(request, 4)
        while answer.error_code == LOADING:  # of producer ids, too
            answer = self._ask(request, 4)
        return answer.error_code, Id(answer.producer_id, answer.producer_epoch)

    def add(self, producer: Id, version: int, number: int | None, *, is_verifying: bool = False) -> int:
        topic, number = (HERE, NOT_IN_IT) if number is None else (self._topic, number)
        topics = [apt.AddPartitionsToTxnTopic.make(name=topic, partitions=[number])]
        fields = self._fields(producer)
        if version < BATCHED_FROM:
            old = {f"v3_and_below_{name}": value for name, value in fields.items()}
            answer = self._ask(apt.AddPartitionsToTxnRequestData.make(**old, v3_and_below_topics=topics), version)
            (result,) = answer.results_by_topic_v3_and_below
        else:
            transaction = apt.AddPartitionsToTxnTransaction.make(**fields, verify_only=is_verifying, topics=topics)
            answer = self._ask(apt.AddPartitionsToTxnRequestData.make(transactions=[transaction]), version)
            ((result,),) = (each.topic_results for each in answer.results_by_transaction)
        code: int = result.results_by_partition[0].partition_error_code
        return code

    def add_offsets(self, producer: Id, version: int) -> int:
        request = AddOffsetsToTxnRequestData.make(**self._fields(producer), group_id=GROUP)
        code: int = self._ask(request, version).error_code
        return code

    def end(self, producer: Id, version: int, *, commits: bool) -> tuple[int, Id | None]:
        answer = self._ask(EndTxnRequestData.make(**self._fields(producer), committed=commits), version)
        given = Id(answer.producer_id, answer.producer_epoch) if version >= EPOCH_TOLD_FROM else None
        return answer.error_code, given

    def produce(self, producer: Id, version: int) -> int:
        records = batch(
            producer_id=producer.producer_id, producer_epoch=producer.epoch, base_sequence=0, is_transactional=True
        )
        data = [p.PartitionProduceData.make(index=NOT_IN_IT, records=records)]
        named = p.TopicProduceData.make(name=HERE, partition_data=data)
        request = p.ProduceRequestData.make(transactional_id=self._name, acks=-1, timeout_ms=30_000, topic_data=[named])
        code: int = self._ask(request, version).responses[0].partition_responses[0].error_code
        return code

    def commit_offsets(self, producer: Id, version: int) -> int:
        part = toc.TxnOffsetCommitRequestPartition.make(committed_offset=1)
        topics = [toc.TxnOffsetCommitRequestTopic.make(name=HERE, partitions=[part])]
        request = toc.TxnOffsetCommitRequestData.make(**self._fields(producer), group_id=GROUP, topics=topics)
        code: int = self._ask(request, version).topics[0].partitions[0].error_code
        return code


def _name_in(named: Callable[[int], str], broker: int) -> str:
    """Of the partition of `__transaction_state` that has this leader."""
    return next(name for name in map(named, count()) if abs_hash(name) % 2 == (broker == FOLLOWER))


def _until(is_so: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < until, f"not in {DEADLINE_S} s: {what}"
        time.sleep(0.01)


if __name__ == "__main__":
    os.umask(0o077)
    main()
