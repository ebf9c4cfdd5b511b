"""What was committed, and a transactional producer made of single requests of Kafka's protocol, on real nodes.

It speaks the flow of transaction version 1 (partitions are added, the epoch stays) or of version 2 (KIP-890: a produce
adds its partition, each end raises the epoch), and does what a client library would not: write without having asked, or
after the end.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final

from kraft.client.response import Answer
from kraft.protocol import codec
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.encoding import TopLevel
from kraft.protocol.messages.add_partitions_to_txn_request import AddPartitionsToTxnRequestData, AddPartitionsToTxnTopic
from kraft.protocol.messages.end_txn_request import EndTxnRequestData
from kraft.protocol.messages.find_coordinator_request import FindCoordinatorRequestData
from kraft.protocol.messages.init_producer_id_request import InitProducerIdRequestData
from kraft.protocol.messages.produce_request import PartitionProduceData, ProduceRequestData, TopicProduceData
from tests.integration.support.cluster import Cluster
from tests.integration.support.reading import TEXT
from tests.integration.support.waiting import NotYet, wait_until

TIMEOUT_S: Final = 60
TRANSACTION_TIMEOUT_MS: Final = 600_000
TRANSACTIONS: Final = 1
"""key_type of FindCoordinator."""
AGAIN: Final = frozenset({3, 5, 6, 7, 14, 15, 16, 19, 20, 51})
"""What any client tries again."""


def committed(cluster: Cluster, node_id: int, topic: str, partition: int = 0) -> list[str]:
    """Over REST, up to the end of the log: nothing may be left open."""
    values: list[str] = []
    offset: str | int = 0
    while True:
        path = f"/topics/{topic}/partitions/{partition}/records?offset={offset}&timeout=0"
        answer = cluster.send(node_id, "GET", f"{path}&isolation_level=read_committed", Accept=TEXT)
        if not isinstance(answer, Answer) or not answer.is_success:
            raise NotYet(f"{path} at node {node_id}: {answer}")
        values += [record["value"] for record in answer.json()]
        offset = int(answer.headers["x-next-offset"])
        if offset >= int(answer.headers["x-last-stable-offset"]):
            if offset < int(answer.headers["x-high-watermark"]):
                raise NotYet(f"{topic}-{partition}: something is open from {offset} on")
            return values


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Versions of its requests."""

    version: int
    """transaction.version."""
    produce: int
    end: int
    init: int = 5
    add_partitions: int = 3

    @property
    def adds_partitions(self) -> bool:
        return self.version < 2


V1: Final = Flow(version=1, produce=11, end=4)
V2: Final = Flow(version=2, produce=12, end=5)


def ask(cluster: Cluster, node_id: int, message: TopLevel, version: int) -> Any:
    """One request on a connection of its own. Raises OSError."""
    return ask_at(cluster.node(node_id).kafka, message, version)


def ask_at(address: str, message: TopLevel, version: int) -> Any:
    """The same, of the node at host:port."""
    host, port = address.rsplit(":", 1)
    head = struct.pack(">hhih", message.API_KEY, version, 7, 2) + b"me"
    head += b"\0" if version >= message.FLEXIBLE_FROM else b""
    frame = head + b"".join(codec.encode_body(message, version))
    with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as connection:
        connection.sendall(struct.pack(">i", len(frame)) + frame)
        (size,) = struct.unpack(">i", _exactly(connection, 4))
        answer = memoryview(_exactly(connection, size))
    kind = _response_of(message)
    return codec.decode_body(kind, version, answer, 5 if version >= kind.FLEXIBLE_FROM else 4)


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError("the connection was closed in place of an answer")
        data += part
    return bytes(data)


def _response_of(message: TopLevel) -> type[TopLevel]:
    kind = type(message)
    module = import_module(kind.__module__.removesuffix("_request") + "_response")
    found: type[TopLevel] = getattr(module, kind.__name__.replace("RequestData", "ResponseData"))
    return found


@dataclass
class RawProducer:
    cluster: Cluster
    transactional_id: str
    flow: Flow
    producer_id: int = -1
    epoch: int = -1
    sequences: dict[tuple[str, int], int] = field(default_factory=dict)

    def init(self) -> None:
        """Takes the transactional id over."""
        request = InitProducerIdRequestData.make(
            transactional_id=self.transactional_id,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            producer_id=-1,
            producer_epoch=-1,
        )
        answer = self._of_coordinator(request, self.flow.init, lambda reported: reported.error_code)
        assert not answer.error_code, answer.error_code
        self.producer_id, self.epoch = answer.producer_id, answer.producer_epoch
        self.sequences.clear()

    def add(self, *partitions: tuple[str, int]) -> int:
        """The error code."""
        topics: dict[str, list[int]] = {}
        for topic, number in partitions:
            topics.setdefault(topic, []).append(number)
        request = AddPartitionsToTxnRequestData.make(
            v3_and_below_transactional_id=self.transactional_id,
            v3_and_below_producer_id=self.producer_id,
            v3_and_below_producer_epoch=self.epoch,
            v3_and_below_topics=[
                AddPartitionsToTxnTopic.make(name=name, partitions=numbers) for name, numbers in topics.items()
            ],
        )

        def code(reported: Any) -> int:
            first: int = reported.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
            return first

        return code(self._of_coordinator(request, self.flow.add_partitions, code))

    def write(self, topic: str, *values: str, partition: int = 0, timestamp_ms: int) -> int:
        """One batch, to the partition's leader; nothing is asked before. The error code."""
        place = topic, partition
        sequence = self.sequences.get(place, 0)
        batch = build_batch(
            [NewRecord(None, value.encode(), [], timestamp_ms) for value in values],
            producer_id=self.producer_id,
            producer_epoch=self.epoch,
            base_sequence=sequence,
            is_transactional=True,
        )
        data = [
            TopicProduceData.make(
                name=topic, partition_data=[PartitionProduceData.make(index=partition, records=batch)]
            )
        ]
        request = ProduceRequestData.make(
            transactional_id=self.transactional_id, acks=-1, timeout_ms=30_000, topic_data=data
        )

        def code(reported: Any) -> int:
            found: int = reported.responses[0].partition_responses[0].error_code
            return found

        found = code(self._asked(lambda: self.cluster.leader_of(topic, partition), request, self.flow.produce, code))
        if not found:
            self.sequences[place] = sequence + len(values)
        return found

    def end(self, *, commits: bool) -> int:
        """The error code."""
        request = EndTxnRequestData.make(
            transactional_id=self.transactional_id,
            producer_id=self.producer_id,
            producer_epoch=self.epoch,
            committed=commits,
        )
        answer = self._of_coordinator(request, self.flow.end, lambda reported: reported.error_code)
        if not answer.error_code and not self.flow.adds_partitions:
            self.producer_id, self.epoch = answer.producer_id, answer.producer_epoch
            self.sequences.clear()
        code: int = answer.error_code
        return code

    def _of_coordinator(self, request: TopLevel, version: int, code: Callable[[Any], int]) -> Any:
        return self._asked(self._coordinator, request, version, code)

    def _coordinator(self) -> int:
        request = FindCoordinatorRequestData.make(key_type=TRANSACTIONS, coordinator_keys=[self.transactional_id])
        (found,) = ask(self.cluster, self.cluster.serving[0], request, 6).coordinators
        return -1 if found.error_code else int(found.node_id)

    def _asked(self, whom: Callable[[], int], request: TopLevel, version: int, code: Callable[[Any], int]) -> Any:
        """The answer, once it is none that says to try again."""
        reported: list[Any] = []

        def is_answered() -> bool:
            node_id = whom()
            if node_id not in self.cluster.serving:
                raise NotYet(f"{type(request).__name__}: node {node_id} is to be asked")
            try:
                answer = ask(self.cluster, node_id, request, version)
            except OSError as error:
                raise NotYet(f"{type(request).__name__} at node {node_id}: {error}") from error
            if code(answer) in AGAIN:
                raise NotYet(f"{type(request).__name__} at node {node_id}: error {code(answer)}")
            reported[:] = [answer]
            return True

        wait_until(is_answered, what=f"an answer to {type(request).__name__}", deadline_s=TIMEOUT_S)
        return reported[0]


def config_of_brokers(cluster: Cluster, **configs: str | None) -> None:
    """Of the whole cluster, until the next call; None is the default again."""
    for name, value in configs.items():
        path = f"/broker-configs/{name.replace('_', '.')}"
        answer = cluster.call("DELETE", path) if value is None else cluster.call("PUT", path, {"value": value})
        assert answer.is_success, answer
