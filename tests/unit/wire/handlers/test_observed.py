"""A request that is sent behind another one sees what that one has done, however late it does it: pairs on one
connection of three simulated nodes, the first of which begins its work only after a while."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import pytest

from kraft.broker.answer_budget import AnswerBudget
from kraft.chaos.worlds.simulated.cluster import SimulatedCluster, SimulatedNode
from kraft.coordinators.shares.decide import Write
from kraft.coordinators.shares.state import ShareKey
from kraft.protocol import apis, codec
from kraft.protocol.encoding import TopLevel
from kraft.protocol.messages import add_offsets_to_txn_request as add_offsets
from kraft.protocol.messages import add_partitions_to_txn_request as add_partitions
from kraft.protocol.messages import alter_configs_request as alter_configs
from kraft.protocol.messages import alter_partition_reassignments_request as reassignments
from kraft.protocol.messages import consumer_group_describe_request as consumer_group_describe
from kraft.protocol.messages import consumer_group_heartbeat_request as consumer_group_heartbeat
from kraft.protocol.messages import create_partitions_request as create_partitions
from kraft.protocol.messages import create_topics_request as create_topics
from kraft.protocol.messages import delete_groups_request as delete_groups
from kraft.protocol.messages import delete_records_request as delete_records
from kraft.protocol.messages import delete_topics_request as delete_topics
from kraft.protocol.messages import describe_configs_request as describe_configs
from kraft.protocol.messages import describe_groups_request as describe_groups
from kraft.protocol.messages import describe_producers_request as describe_producers
from kraft.protocol.messages import describe_transactions_request as describe_transactions
from kraft.protocol.messages import end_txn_request as end_txn
from kraft.protocol.messages import incremental_alter_configs_request as incremental_alter_configs
from kraft.protocol.messages import init_producer_id_request as init_producer_id
from kraft.protocol.messages import join_group_request as join_group
from kraft.protocol.messages import leave_group_request as leave_group
from kraft.protocol.messages import list_offsets_request as list_offsets
from kraft.protocol.messages import metadata_request as metadata
from kraft.protocol.messages import offset_commit_request as offset_commit
from kraft.protocol.messages import offset_delete_request as offset_delete
from kraft.protocol.messages import offset_fetch_request as offset_fetch
from kraft.protocol.messages import produce_request as produce
from kraft.protocol.messages import share_acknowledge_request as share_acknowledge
from kraft.protocol.messages import share_fetch_request as share_fetch
from kraft.protocol.messages import share_group_describe_request as share_group_describe
from kraft.protocol.messages import share_group_heartbeat_request as share_group_heartbeat
from kraft.protocol.messages import sync_group_request as sync_group
from kraft.protocol.messages import txn_offset_commit_request as txn_offset_commit
from kraft.protocol.messages import write_txn_markers_request as write_txn_markers
from kraft.protocol.primitives import Buffer
from kraft.protocol.transactions import Producer
from kraft.wire.api_handler import ApiHandler, Call, ClientConnection, Later
from kraft.wire.budget import Budget
from kraft.wire.channels.share_state import (
    DELETE_STATE,
    INITIALIZE_STATE,
    READ_STATE,
    STATE_SUMMARY,
    WRITE_STATE,
    InitializeState,
    ReadState,
    WriteState,
)
from kraft.wire.handler_table import ROWS, ApiHandlers, Order
from kraft.wire.large_requests import LargeRequests
from kraft.wire.session import Session, Shared
from metadata.environment import FrameConnection
from tests.support.client_door import ClientDoor, broker_of
from tests.unit.coordinators.test_share_coordinator_cluster import served_by
from tests.unit.coordinators.test_transaction_cluster import create, play, until
from tests.unit.coordinators.test_transactional_writes import batch

HELD_S = 2.0
EARLIEST, LATEST = -2, -1
TOPIC_CONFIGS, NAME = 2, "retention.ms"
UNREADY = {14, 15, 16, 51}


class Asked(NamedTuple):
    message: Any
    version: int


class Pair(NamedTuple):
    first: Asked
    second: Asked
    is_seen: Callable[[Any], bool]
    """Of the second answer: it is that of a cluster in which the first request has been done."""


# --- one connection --------------------------------------------------------------------------------------------------


class Wire:
    """Carries requests to a session and its answers back, without a network."""

    peer = "10.1.2.3:54321"
    is_closed, is_writable, unsent_bytes = False, True, 0

    def __init__(self, frames: Sequence[bytes]) -> None:
        self.frames = deque(frames)
        self.answers: list[bytes] = []

    def send(self, parts: Sequence[Buffer]) -> None:
        self.answers.append(b"".join(parts))

    async def drain(self) -> None:
        return

    async def receive_while(self, take: Callable[[memoryview], bool]) -> memoryview:
        while self.frames:
            frame = memoryview(self.frames.popleft())
            if not take(frame):
                return frame
        await asyncio.Event().wait()
        raise AssertionError

    def close(self) -> None:
        self.is_closed = True

    abort = close


class Delayed(ApiHandlers):
    """The handlers of a node, of which one begins late."""

    def __init__(self, node: SimulatedNode, key: int) -> None:
        super().__init__(broker_of(node))
        self._key = key

    def get(self, key: int) -> ApiHandler | None:
        api = super().get(key)
        return replace(api, handle=_late(api)) if api is not None and key == self._key else api


def _late(api: ApiHandler) -> Callable[[Call[Any]], Any]:
    async def handle(call: Call[Any]) -> TopLevel | None:
        await asyncio.sleep(HELD_S)
        answer = api.handle(call)
        if isinstance(answer, Later):
            return cast("TopLevel | None", answer.render(await answer.future))
        return await answer if isinstance(answer, Awaitable) else answer

    return handle


def framed(asked: Asked, correlation_id: int) -> bytes:
    message, version = asked
    head = struct.pack(">hhih", message.API_KEY, version, correlation_id, 2) + b"me"
    head += b"\0" if version >= message.FLEXIBLE_FROM else b""
    return head + b"".join(codec.encode_body(message, version))


async def pipelined(node: SimulatedNode, first: Asked, second: Asked) -> list[Any]:
    """Both answers, of which the first is late."""
    apis = Delayed(node, first.message.API_KEY)
    wire = Wire([framed(second, 1)])
    assert node.node is not None
    shared = Shared(
        clock=node.node.environment.clock,
        handlers=apis,
        bytes_max=1_000_000,
        produce_budget=Budget(1_000_000),
        answers=AnswerBudget(1_000_000),
        large=LargeRequests(node.node.environment, items_max=50_000),
    )
    client = ClientConnection(peer=wire.peer, listener="PLAINTEXT")
    session = Session(shared, cast(FrameConnection, wire), client, takes_nodes=False)
    serving = asyncio.ensure_future(node.machine.run(session.serve(memoryview(framed(first, 0)))))

    async def both() -> bool:
        return len(wire.answers) == 2

    await until(both)
    serving.cancel()
    return [_read(apis, each, answer) for each, answer in zip((first, second), wire.answers, strict=True)]


def _read(apis: ApiHandlers, asked: Asked, answer: bytes) -> Any:
    api = apis.get(asked.message.API_KEY)
    assert api is not None
    start = 5 if asked.version >= api.response.FLEXIBLE_FROM else 4
    return codec.decode_body(api.response, asked.version, memoryview(answer), start)


# --- the cluster before a pair ---------------------------------------------------------------------------------------


class Before:
    """A node that leads topic "a" and coordinates a group and a transactional id."""

    def __init__(self, cluster: SimulatedCluster, node: SimulatedNode, group: str, transactional_id: str) -> None:
        self.cluster, self.node = cluster, node
        self.group, self.id = group, transactional_id
        self.producer = Producer(-1, -1)

    async def ask(self, message: Any, version: int) -> Any:
        return await ClientDoor(self.node).ask(message, version)

    async def init(self) -> None:
        answer = await self.ask(self.init_request().message, 5)
        assert not answer.error_code, answer
        self.producer = Producer(answer.producer_id, answer.producer_epoch)

    def init_request(self) -> Asked:
        message = init_producer_id.InitProducerIdRequestData.make(
            transactional_id=self.id, transaction_timeout_ms=60_000, producer_id=-1, producer_epoch=-1
        )
        return Asked(message, 5)

    def produce(self, *, is_transactional: bool = False, version: int = 11) -> Asked:
        data = (
            batch(self.producer, 0, b"v") if is_transactional else batch(Producer(-1, -1), -1, is_transactional=False)
        )
        topic = produce.TopicProduceData.make(
            name="a", partition_data=[produce.PartitionProduceData.make(index=0, records=data)]
        )
        message = produce.ProduceRequestData.make(
            transactional_id=self.id if is_transactional else None, acks=-1, timeout_ms=10_000, topic_data=[topic]
        )
        return Asked(message, version)

    async def writes(self, asked: Asked) -> None:
        (topic,) = (await self.ask(*asked)).responses
        assert topic.partition_responses[0].error_code == 0, topic

    def add(self) -> Asked:
        message = add_partitions.AddPartitionsToTxnRequestData.make(
            v3_and_below_transactional_id=self.id,
            v3_and_below_producer_id=self.producer.producer_id,
            v3_and_below_producer_epoch=self.producer.epoch,
            v3_and_below_topics=[add_partitions.AddPartitionsToTxnTopic.make(name="a", partitions=[0])],
        )
        return Asked(message, 3)

    def end(self, *, version: int = 4) -> Asked:
        message = end_txn.EndTxnRequestData.make(
            transactional_id=self.id,
            producer_id=self.producer.producer_id,
            producer_epoch=self.producer.epoch,
            committed=True,
        )
        return Asked(message, version)

    def commit(self, offset: int = 7) -> Asked:
        partition = offset_commit.OffsetCommitRequestPartition.make(
            partition_index=0, committed_offset=offset, committed_metadata=""
        )
        topic = offset_commit.OffsetCommitRequestTopic.make(name="a", partitions=[partition])
        message = offset_commit.OffsetCommitRequestData.make(
            group_id=self.group, generation_id_or_member_epoch=-1, member_id="", topics=[topic]
        )
        return Asked(message, 8)

    def committed(self) -> Asked:
        topic = offset_fetch.OffsetFetchRequestTopics.make(name="a", partition_indexes=[0])
        group = offset_fetch.OffsetFetchRequestGroup.make(group_id=self.group, topics=[topic])
        return Asked(offset_fetch.OffsetFetchRequestData.make(groups=[group]), 8)

    def join(self, member_id: str = "") -> Asked:
        message = join_group.JoinGroupRequestData.make(
            group_id=self.group,
            session_timeout_ms=30_000,
            rebalance_timeout_ms=30_000,
            member_id=member_id,
            protocol_type="consumer",
            protocols=[join_group.JoinGroupRequestProtocol.make(name="range", metadata=b"")],
        )
        return Asked(message, 3)

    def sync(self, member_id: str) -> Asked:
        message = sync_group.SyncGroupRequestData.make(
            group_id=self.group,
            generation_id=1,
            member_id=member_id,
            assignments=[sync_group.SyncGroupRequestAssignment.make(member_id=member_id, assignment=b"x")],
        )
        return Asked(message, 2)

    def described(self) -> Asked:
        return Asked(describe_groups.DescribeGroupsRequestData.make(groups=[self.group]), 5)

    async def joined(self) -> str:
        answer = await self.ask(*self.join())
        assert (answer.error_code, answer.generation_id) == (0, 1), answer
        return str(answer.member_id)


async def before(cluster: SimulatedCluster) -> Before:
    node = cluster.nodes[1]
    await create(cluster, "a", on=(1,))
    names = []
    for kind in ("groups", "transactions"):

        async def name(kind: str = kind) -> str | None:
            assert node.node is not None
            routing = getattr(node.node, kind)
            for number in range(100):
                name = f"{kind}-{number}"
                if await node.machine.run(routing.coordinator_of(name)) == node.node_id:
                    return name
            return None

        names.append(await until(name))
    found = Before(cluster, node, *names)

    async def is_loaded() -> bool:
        commit = (await found.ask(*found.commit(1))).topics[0].partitions[0].error_code
        init = (await found.ask(*found.init_request())).error_code
        return not {commit, init} & UNREADY

    await until(is_loaded)
    await found.ask(delete_groups.DeleteGroupsRequestData.make(groups_names=[found.group]), 2)
    return found


def topic_metadata(name: str) -> Asked:
    return Asked(metadata.MetadataRequestData.make(topics=[metadata.MetadataRequestTopic.make(name=name)]), 12)


def offsets(timestamp: int) -> Asked:
    partition = list_offsets.ListOffsetsPartition.make(partition_index=0, current_leader_epoch=-1, timestamp=timestamp)
    topic = list_offsets.ListOffsetsTopic.make(name="a", partitions=[partition])
    return Asked(list_offsets.ListOffsetsRequestData.make(replica_id=-1, topics=[topic]), 5)


def configs() -> Asked:
    resource = describe_configs.DescribeConfigsResource.make(
        resource_type=TOPIC_CONFIGS, resource_name="a", configuration_keys=[NAME]
    )
    return Asked(describe_configs.DescribeConfigsRequestData.make(resources=[resource]), 4)


def has_offset(offset: int) -> Callable[[Any], bool]:
    return lambda answer: answer.topics[0].partitions[0].offset == offset


def has_committed(offset: int) -> Callable[[Any], bool]:
    return lambda answer: answer.groups[0].topics[0].partitions[0].committed_offset == offset


def has_config(value: str) -> Callable[[Any], bool]:
    return lambda answer: answer.results[0].configs[0].value == value


def is_taken(answer: Any) -> bool:
    return bool(answer.error_code == 0)


# --- pairs -----------------------------------------------------------------------------------------------------------


async def of_produce(it: Before) -> Pair:
    return Pair(it.produce(), offsets(LATEST), has_offset(1))


async def of_commit(it: Before) -> Pair:
    return Pair(it.commit(), it.committed(), has_committed(7))


async def of_join(it: Before) -> Pair:
    return Pair(it.join(), it.described(), lambda answer: len(answer.groups[0].members) == 1)


async def of_leave(it: Before) -> Pair:
    member = leave_group.MemberIdentity.make(member_id=await it.joined())
    message = leave_group.LeaveGroupRequestData.make(group_id=it.group, members=[member])
    return Pair(Asked(message, 4), it.described(), lambda answer: not answer.groups[0].members)


async def of_sync(it: Before) -> Pair:
    sync = it.sync(await it.joined())
    return Pair(sync, it.described(), lambda answer: answer.groups[0].group_state == "Stable")


async def of_create(it: Before) -> Pair:
    topic = create_topics.CreatableTopic.make(name="b", num_partitions=1, replication_factor=1)
    message = create_topics.CreateTopicsRequestData.make(topics=[topic], timeout_ms=10_000)
    return Pair(Asked(message, 5), topic_metadata("b"), lambda answer: answer.topics[0].error_code == 0)


async def of_delete(it: Before) -> Pair:
    message = delete_topics.DeleteTopicsRequestData.make(topic_names=["a"], timeout_ms=10_000)
    return Pair(Asked(message, 4), topic_metadata("a"), lambda answer: answer.topics[0].error_code == 3)


async def of_delete_records(it: Before) -> Pair:
    for _ in range(3):
        await it.writes(it.produce())
    partition = delete_records.DeleteRecordsPartition.make(partition_index=0, offset=2)
    topic = delete_records.DeleteRecordsTopic.make(name="a", partitions=[partition])
    message = delete_records.DeleteRecordsRequestData.make(topics=[topic], timeout_ms=10_000)
    return Pair(Asked(message, 2), offsets(EARLIEST), has_offset(2))


async def of_init(it: Before) -> Pair:
    await it.init()
    fenced = 90
    return Pair(
        it.init_request(),
        it.add(),
        lambda answer: answer.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code == fenced,
    )


async def of_add_partitions(it: Before) -> Pair:
    await it.init()
    return Pair(it.add(), it.end(), is_taken)


async def of_add_offsets(it: Before) -> Pair:
    await it.init()
    message = add_offsets.AddOffsetsToTxnRequestData.make(
        transactional_id=it.id,
        producer_id=it.producer.producer_id,
        producer_epoch=it.producer.epoch,
        group_id=it.group,
    )
    return Pair(Asked(message, 3), it.end(), is_taken)


async def of_end(it: Before) -> Pair:
    await it.init()
    await it.ask(*it.add())
    message = describe_transactions.DescribeTransactionsRequestData.make(transactional_ids=[it.id])
    return Pair(
        it.end(),
        Asked(message, 0),
        lambda answer: "Commit" in answer.transaction_states[0].transaction_state,
    )


async def of_markers(it: Before) -> Pair:
    await it.init()
    await it.ask(*it.add())
    await it.writes(it.produce(is_transactional=True))
    topic = write_txn_markers.WritableTxnMarkerTopic.make(name="a", partition_indexes=[0])
    marker = write_txn_markers.WritableTxnMarker.make(
        producer_id=it.producer.producer_id,
        producer_epoch=it.producer.epoch,
        transaction_result=False,
        topics=[topic],
        coordinator_epoch=1,
    )
    message = write_txn_markers.WriteTxnMarkersRequestData.make(markers=[marker])
    described = describe_producers.DescribeProducersRequestData.make(
        topics=[describe_producers.TopicRequest.make(name="a", partition_indexes=[0])]
    )
    return Pair(
        Asked(message, 1),
        Asked(described, 0),
        lambda answer: answer.topics[0].partitions[0].active_producers[0].current_txn_start_offset == -1,
    )


async def of_commit_in_transaction(it: Before) -> Pair:
    """Version 5 adds the partition of the group itself: there is a transaction to end only behind it."""
    await it.init()
    partition = txn_offset_commit.TxnOffsetCommitRequestPartition.make(
        partition_index=0, committed_offset=7, committed_metadata=""
    )
    topic = txn_offset_commit.TxnOffsetCommitRequestTopic.make(name="a", partitions=[partition])
    message = txn_offset_commit.TxnOffsetCommitRequestData.make(
        transactional_id=it.id,
        group_id=it.group,
        producer_id=it.producer.producer_id,
        producer_epoch=it.producer.epoch,
        generation_id_or_member_epoch=-1,
        topics=[topic],
    )
    return Pair(Asked(message, 5), it.end(), is_taken)


async def of_alter_configs(it: Before) -> Pair:
    config = alter_configs.AlterableConfig.make(name=NAME, value="1234567")
    resource = alter_configs.AlterConfigsResource.make(resource_type=TOPIC_CONFIGS, resource_name="a", configs=[config])
    message = alter_configs.AlterConfigsRequestData.make(resources=[resource])
    return Pair(Asked(message, 2), configs(), has_config("1234567"))


async def of_incremental_alter_configs(it: Before) -> Pair:
    config = incremental_alter_configs.AlterableConfig.make(name=NAME, config_operation=0, value="7654321")
    resource = incremental_alter_configs.AlterConfigsResource.make(
        resource_type=TOPIC_CONFIGS, resource_name="a", configs=[config]
    )
    message = incremental_alter_configs.IncrementalAlterConfigsRequestData.make(resources=[resource])
    return Pair(Asked(message, 1), configs(), has_config("7654321"))


async def of_create_partitions(it: Before) -> Pair:
    topic = create_partitions.CreatePartitionsTopic.make(name="a", count=3, assignments=None)
    message = create_partitions.CreatePartitionsRequestData.make(topics=[topic], timeout_ms=10_000)
    return Pair(Asked(message, 3), topic_metadata("a"), lambda answer: len(answer.topics[0].partitions) == 3)


async def of_delete_groups(it: Before) -> Pair:
    await it.ask(*it.commit())
    message = delete_groups.DeleteGroupsRequestData.make(groups_names=[it.group])
    return Pair(Asked(message, 2), it.committed(), has_committed(-1))


async def of_offset_delete(it: Before) -> Pair:
    await it.ask(*it.commit())
    partition = offset_delete.OffsetDeleteRequestPartition.make(partition_index=0)
    topic = offset_delete.OffsetDeleteRequestTopic.make(name="a", partitions=[partition])
    message = offset_delete.OffsetDeleteRequestData.make(group_id=it.group, topics=[topic])
    return Pair(Asked(message, 0), it.committed(), has_committed(-1))


async def of_reassignments(it: Before) -> Pair:
    partition = reassignments.ReassignablePartition.make(partition_index=0, replicas=[1, 2])
    topic = reassignments.ReassignableTopic.make(name="a", partitions=[partition])
    message = reassignments.AlterPartitionReassignmentsRequestData.make(timeout_ms=10_000, topics=[topic])
    return Pair(
        Asked(message, 0),
        topic_metadata("a"),
        lambda answer: set(answer.topics[0].partitions[0].replica_nodes) == {1, 2},
    )


async def of_consumer_heartbeat(it: Before) -> Pair:
    message = consumer_group_heartbeat.ConsumerGroupHeartbeatRequestData.make(
        group_id=it.group,
        member_id="m",
        member_epoch=0,
        rebalance_timeout_ms=30_000,
        subscribed_topic_names=["a"],
        topic_partitions=[],
    )
    described = consumer_group_describe.ConsumerGroupDescribeRequestData.make(group_ids=[it.group])
    return Pair(Asked(message, 1), Asked(described, 1), lambda answer: len(answer.groups[0].members) == 1)


async def of_share_heartbeat(it: Before) -> Pair:
    served_by(it.cluster)
    message = share_group_heartbeat.ShareGroupHeartbeatRequestData.make(
        group_id=it.group, member_id="m", member_epoch=0, subscribed_topic_names=["a"]
    )
    described = share_group_describe.ShareGroupDescribeRequestData.make(group_ids=[it.group])
    return Pair(Asked(message, 1), Asked(described, 1), lambda answer: len(answer.groups[0].members) == 1)


async def _share_key(it: Before, *, is_initialized: bool = True) -> ShareKey:
    """A share partition that this node coordinates, of a partition that it leads."""
    node = it.node.node
    assert node is not None
    topic = node.publisher.image.topic("a")
    assert topic is not None
    for number in range(100):
        key = ShareKey(f"shares-{number}", topic.topic_id, 0)
        if await it.node.machine.run(node.share_persister.coordinator_of(key.coordinator_key)) == it.node.node_id:
            if is_initialized:
                await it.node.machine.run(node.share_persister.initialize(key, state_epoch=1, start_offset=0))
            return key
    raise AssertionError("this node coordinates no share partition")


def _summary(key: ShareKey) -> Asked:
    return Asked(STATE_SUMMARY.to_request(key, 0), 1)


def _summarized(answer: Any) -> Any:
    return answer.results[0].partitions[0]


async def of_initialize_share_state(it: Before) -> Pair:
    key = await _share_key(it, is_initialized=False)
    first = Asked(INITIALIZE_STATE.to_request(InitializeState(key, 1, 7), 0), 0)
    return Pair(first, _summary(key), lambda answer: _summarized(answer).start_offset == 7)


async def of_read_share_state(it: Before) -> Pair:
    key = await _share_key(it)
    first = Asked(READ_STATE.to_request(ReadState(key, 9), 0), 0)
    return Pair(first, _summary(key), lambda answer: _summarized(answer).leader_epoch == 9)


async def of_write_share_state(it: Before) -> Pair:
    key = await _share_key(it)
    write = Write(state_epoch=1, leader_epoch=9, start_offset=5, delivery_complete_count=0, batches=())
    first = Asked(WRITE_STATE.to_request(WriteState(key, write), 0), 1)
    return Pair(first, _summary(key), lambda answer: _summarized(answer).start_offset == 5)


async def of_delete_share_state(it: Before) -> Pair:
    key = await _share_key(it)
    first = Asked(DELETE_STATE.to_request(key, 0), 0)
    return Pair(first, _summary(key), lambda answer: _summarized(answer).start_offset == -1)


async def of_share_acknowledge(it: Before) -> Pair:
    """The next fetch gets what was released."""
    key = await _share_key(it)
    await it.writes(it.produce())
    await it.ask(*_share_fetch(key, 0))
    batch = share_acknowledge.AcknowledgementBatch.make(first_offset=0, last_offset=0, acknowledge_types=[2])
    partition = share_acknowledge.AcknowledgePartition.make(partition_index=0, acknowledgement_batches=[batch])
    message = share_acknowledge.ShareAcknowledgeRequestData.make(
        group_id=key.group,
        member_id="m",
        share_session_epoch=1,
        topics=[share_acknowledge.AcknowledgeTopic.make(topic_id=key.topic_id, partitions=[partition])],
    )
    return Pair(Asked(message, 2), _share_fetch(key, 2), lambda answer: bool(_summary_of_fetch(answer)))


def _share_fetch(key: ShareKey, epoch: int) -> Asked:
    partition = share_fetch.FetchPartition.make(partition_index=0)
    message = share_fetch.ShareFetchRequestData.make(
        group_id=key.group,
        member_id="m",
        share_session_epoch=epoch,
        max_bytes=10_000,
        max_records=500,
        batch_size=500,
        topics=[share_fetch.FetchTopic.make(topic_id=key.topic_id, partitions=[partition])],
    )
    return Asked(message, 2)


def _summary_of_fetch(answer: Any) -> Any:
    return [each for topic in answer.responses for each in topic.partitions if each.acquired_records]


PAIRS: dict[str, Callable[[Before], Awaitable[Pair]]] = {
    "Produce": of_produce,
    "OffsetCommit": of_commit,
    "JoinGroup": of_join,
    "LeaveGroup": of_leave,
    "SyncGroup": of_sync,
    "CreateTopics": of_create,
    "DeleteTopics": of_delete,
    "DeleteRecords": of_delete_records,
    "InitProducerId": of_init,
    "AddPartitionsToTxn": of_add_partitions,
    "AddOffsetsToTxn": of_add_offsets,
    "EndTxn": of_end,
    "WriteTxnMarkers": of_markers,
    "TxnOffsetCommit": of_commit_in_transaction,
    "AlterConfigs": of_alter_configs,
    "CreatePartitions": of_create_partitions,
    "DeleteGroups": of_delete_groups,
    "IncrementalAlterConfigs": of_incremental_alter_configs,
    "AlterPartitionReassignments": of_reassignments,
    "OffsetDelete": of_offset_delete,
    "ConsumerGroupHeartbeat": of_consumer_heartbeat,
    "ShareGroupHeartbeat": of_share_heartbeat,
    "ShareAcknowledge": of_share_acknowledge,
    "InitializeShareGroupState": of_initialize_share_state,
    "ReadShareGroupState": of_read_share_state,
    "WriteShareGroupState": of_write_share_state,
    "DeleteShareGroupState": of_delete_share_state,
}
WITHOUT_A_PAIR = {
    "AlterShareGroupOffsets": "it answers when the share coordinator has written, and test_share_offsets reads it",
    "DeleteShareGroupOffsets": "it answers when the share coordinator has written, and test_share_offsets reads it",
    "Heartbeat": "it makes a session longer, which no answer tells",
    "SaslHandshake": "refused to all",
    "SaslAuthenticate": "refused to all",
    "CreateAcls": "refused to all",
    "DeleteAcls": "refused to all",
    "AlterClientQuotas": "refused to all",
    "AlterUserScramCredentials": "refused to all",
    "UpdateFeatures": "changes nothing: each feature has one level",
    "AlterReplicaLogDirs": "these nodes have one directory each",
    "ElectLeaders": "the leader of this topic is the preferred one",
    "UnregisterBroker": "all brokers are there",
}
"""Their order is held to in test_order.py."""


def test_whatever_changes_something_has_a_pair_or_a_reason() -> None:
    changing = {apis.BY_KEY[key].name for key, row in ROWS.items() if row.order is not Order.READ}
    assert changing == PAIRS.keys() | WITHOUT_A_PAIR.keys()
    assert not PAIRS.keys() & WITHOUT_A_PAIR.keys()


@pytest.mark.parametrize("name", PAIRS)
def test_a_request_sees_what_the_one_before_it_did(name: str) -> None:
    async def story(cluster: SimulatedCluster) -> None:
        it = await before(cluster)
        pair = await PAIRS[name](it)
        assert apis.BY_KEY[pair.first.message.API_KEY].name == name
        first, second = await pipelined(it.node, pair.first, pair.second)
        assert pair.is_seen(second), (first, second)

    play(story, group_initial_rebalance_delay_ms=0)
