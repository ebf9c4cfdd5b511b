"""The questions about share groups: members, sessions, acknowledgements, offsets, and the state of share coordinators.

Those about states are asked between brokers. A broker without an authorizer answers them to anybody.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any
from uuid import UUID

from kraft.protocol import apis
from kraft.protocol.encoding import TopLevel
from kraft.protocol.messages import alter_share_group_offsets_request as altering
from kraft.protocol.messages import delete_share_group_offsets_request as deleting
from kraft.protocol.messages import delete_share_group_state_request as deletion
from kraft.protocol.messages import describe_share_group_offsets_request as describing
from kraft.protocol.messages import initialize_share_group_state_request as initialization
from kraft.protocol.messages import read_share_group_state_request as reading
from kraft.protocol.messages import read_share_group_state_summary_request as summary
from kraft.protocol.messages import share_acknowledge_request as sa
from kraft.protocol.messages import share_fetch_request as sf
from kraft.protocol.messages import write_share_group_state_request as writing
from kraft.protocol.messages.find_coordinator_request import FindCoordinatorRequestData
from kraft.protocol.messages.share_group_describe_request import ShareGroupDescribeRequestData
from kraft.protocol.messages.share_group_heartbeat_request import ShareGroupHeartbeatRequestData

Ask = Callable[[str, TopLevel, int], Any]
Until = Callable[[Callable[[], bool], str], None]

TOPIC, GROUP, STATED = "shared", "sharers", "stated"
UNKNOWN, UNKNOWN_ID = "no-such-topic", UUID("0a0b0c0d-0000-4000-8000-0102030405ff")
SHARE_COORDINATOR = 2
"""The key type of FindCoordinator."""
WAIT_MS = 200
RENEWS_FROM = 2
ACCEPT, RENEW = 1, 4


def ask_all(ask: Ask, until: Until, topic_id: UUID) -> None:
    """`topic_id`: of `TOPIC`, which has two partitions with many small batches in the first."""
    _coordinator(ask, until, topic_id)
    _members(ask, until)
    for version in apis.SHARE_FETCH.clients:
        _Session(ask, until, topic_id, version).ask_all()
    _offsets(ask)
    for version in apis.WRITE_SHARE_GROUP_STATE.clients:
        _state(ask, topic_id, version)


def _coordinator(ask: Ask, until: Until, topic_id: UUID) -> None:
    encoded = base64.urlsafe_b64encode(topic_id.bytes).rstrip(b"=").decode()
    keys = [f"{STATED}:{encoded}:0"]
    request = FindCoordinatorRequestData.make(coordinator_keys=keys, key_type=SHARE_COORDINATOR)
    until(lambda: not ask("while it is made", request, 6).coordinators[0].error_code, "no share coordinator")
    ask("of a share partition", request, 6)
    ask(
        "of a share partition that is none",
        FindCoordinatorRequestData.make(coordinator_keys=["sharers"], key_type=SHARE_COORDINATOR),
        6,
    )
    part = summary.PartitionData.make(partition=0, leader_epoch=0)
    data = summary.ReadStateSummaryData.make(topic_id=topic_id, partitions=[part])
    asked = summary.ReadShareGroupStateSummaryRequestData.make(group_id=STATED, topics=[data])
    until(
        lambda: ask("while it is loaded", asked, 0).results[0].partitions[0].error_code not in (14, 15, 16),
        "the share coordinator is not loaded",
    )


def _members(ask: Ask, until: Until) -> None:
    member = str(UUID(int=1))

    def beat(name: str, **fields: Any) -> Any:
        return ask(name, ShareGroupHeartbeatRequestData.make(**{"group_id": GROUP, "member_id": member} | fields), 1)

    joining = {"member_epoch": 0, "subscribed_topic_names": [TOPIC]}
    beat("an empty group id", group_id="", **joining)
    beat("an empty member id", member_id="", **joining)
    beat("no subscription", member_epoch=0, subscribed_topic_names=None)
    beat("an empty rack", rack_id="", **joining)
    beat("an epoch that is none", member_epoch=-3, subscribed_topic_names=[TOPIC])
    beat("of another kind of group", group_id="consumer-1", **joining)
    beat("of no group", group_id="no-such-group", member_epoch=5, subscribed_topic_names=None)
    epoch = beat("a member joins", **joining).member_epoch

    def is_assigned() -> bool:
        nonlocal epoch
        answer = beat("while it is assigned", member_epoch=epoch, subscribed_topic_names=[TOPIC])
        epoch = answer.member_epoch
        return answer.assignment is not None and len(answer.assignment.topic_partitions) > 0

    until(is_assigned, "no partitions are assigned")
    beat("a full request", member_epoch=epoch, subscribed_topic_names=[TOPIC])
    beat("nothing changed", member_epoch=epoch, subscribed_topic_names=None)
    beat("of an epoch to come", member_epoch=epoch + 100, subscribed_topic_names=None)
    beat("of a stranger", member_id="stranger", member_epoch=epoch, subscribed_topic_names=None)
    for name, group in (("of a group", GROUP), ("of no group", "no-such-group"), ("of another kind", "consumer-1")):
        ask(name, ShareGroupDescribeRequestData.make(group_ids=[group]), 1)
    ask(
        "with what is allowed",
        ShareGroupDescribeRequestData.make(group_ids=[GROUP], include_authorized_operations=True),
        1,
    )
    ask("of a group with members", _altering(GROUP, TOPIC), 0)
    ask("of a group with members", _deleting(GROUP, TOPIC), 0)
    beat("a member leaves", member_epoch=-1, subscribed_topic_names=None)


class _Session:
    """Share sessions in one version of ShareFetch and ShareAcknowledge, from their begin to their end."""

    def __init__(self, ask: Ask, until: Until, topic_id: UUID, version: int) -> None:
        self._ask, self._until, self._topic_id, self._version = ask, until, topic_id, version
        self._member = str(UUID(int=10 + version))

    def ask_all(self) -> None:
        self._refused()
        self._until(lambda: len(self._acquired("while it is loaded", 0)) > 0, "nothing is handed out")
        acquired = self._acquired("records", 1)
        self._fetch("of an epoch to come", 100)
        self._fetch("with acknowledgements", 2, acks=[(acquired, ACCEPT)])
        self._fetch("with acknowledgements of what nobody has", 3, acks=[([0, 0], ACCEPT), ([9_000, 9_000], ACCEPT)])
        acquired = self._acquired("records again", 4)
        self._acknowledge("of an epoch to come", 100, [(acquired, ACCEPT)])
        self._acknowledge("a type that is none", 5, [(acquired, 9)])
        self._acknowledge("backwards", 6, [(acquired[::-1], ACCEPT)])
        if self._version >= RENEWS_FROM:
            self._acknowledge("renewed", 7, [(acquired, RENEW)], is_renew_ack=True)
            self._fetch("renewed", 8, acks=[(acquired, RENEW)], is_renew_ack=True, max_wait_ms=0, max_bytes=0, count=0)
            self._fetch("renewed by a request that fetches", 9, acks=[(acquired, RENEW)], is_renew_ack=True)
        last = 9 if self._version >= RENEWS_FROM else 7
        self._acknowledge("accepted", last, [(acquired, ACCEPT)])
        self._acknowledge("accepted twice", last + 1, [(acquired, ACCEPT)])
        self._acknowledge("the session ends", -1, [])
        self._acknowledge("after the session", last + 2, [(acquired, ACCEPT)])
        self._fetch("the end of a session that is none", -1)

    def _refused(self) -> None:
        self._fetch("an empty member id", 0, member_id="")
        self._fetch("an empty group id", 0, group_id="")
        self._fetch("of a session that is none", 5)
        self._fetch("a session that begins with acknowledgements", 0, acks=[([0, 0], ACCEPT)])
        self._fetch("of no topic", 0, topic_id=UNKNOWN_ID)
        self._fetch("of no partition", 0, partition=99)
        self._acknowledge("of a session that is none", 5, [([0, 0], ACCEPT)])
        self._acknowledge("a session that begins", 0, [([0, 0], ACCEPT)])

    def _acquired(self, name: str, epoch: int) -> list[int]:
        """First and last offset."""
        answer = self._fetch(name, epoch)
        found = [each for topic in answer.responses for part in topic.partitions for each in part.acquired_records]
        return [found[0].first_offset, found[0].last_offset] if found else []

    def _fetch(
        self,
        name: str,
        epoch: int,
        *,
        acks: Any = (),
        topic_id: UUID | None = None,
        partition: int = 0,
        count: int = 1,
        **fields: Any,
    ) -> Any:
        wanted = sf.FetchPartition.make(
            partition_index=partition,
            acknowledgement_batches=[
                sf.AcknowledgementBatch.make(first_offset=first, last_offset=last, acknowledge_types=[kind])
                for (first, last), kind in acks
            ],
        )
        topic = sf.FetchTopic.make(topic_id=topic_id or self._topic_id, partitions=[wanted])
        who = {"group_id": GROUP, "member_id": self._member}
        how = {"max_wait_ms": WAIT_MS, "min_bytes": min(count, 1), "max_bytes": 1_000_000, "max_records": count}
        request = sf.ShareFetchRequestData.make(
            **who | how | {"batch_size": count} | fields, share_session_epoch=epoch, topics=[topic]
        )
        return self._ask(name, request, self._version)

    def _acknowledge(self, name: str, epoch: int, acks: Any, **fields: Any) -> None:
        batches = [
            sa.AcknowledgementBatch.make(first_offset=first, last_offset=last, acknowledge_types=[kind])
            for (first, last), kind in acks
        ]
        part = sa.AcknowledgePartition.make(partition_index=0, acknowledgement_batches=batches)
        topics = [sa.AcknowledgeTopic.make(topic_id=self._topic_id, partitions=[part])] if acks else []
        request = sa.ShareAcknowledgeRequestData.make(
            group_id=GROUP, member_id=self._member, share_session_epoch=epoch, topics=topics, **fields
        )
        self._ask(name, request, self._version)


def _altering(group: str, topic: str, *, partition: int = 0) -> TopLevel:
    part = altering.AlterShareGroupOffsetsRequestPartition.make(partition_index=partition, start_offset=0)
    topics = [altering.AlterShareGroupOffsetsRequestTopic.make(topic_name=topic, partitions=[part])]
    return altering.AlterShareGroupOffsetsRequestData.make(group_id=group, topics=topics)


def _deleting(group: str, topic: str) -> TopLevel:
    topics = [deleting.DeleteShareGroupOffsetsRequestTopic.make(topic_name=topic)]
    return deleting.DeleteShareGroupOffsetsRequestData.make(group_id=group, topics=topics)


def _offsets(ask: Ask) -> None:
    def describe(name: str, group: str, topic: str | None, version: int) -> None:
        topics = None
        if topic is not None:
            topics = [describing.DescribeShareGroupOffsetsRequestTopic.make(topic_name=topic, partitions=[0, 1])]
        groups = [describing.DescribeShareGroupOffsetsRequestGroup.make(group_id=group, topics=topics)]
        ask(name, describing.DescribeShareGroupOffsetsRequestData.make(groups=groups), version)

    for version in apis.BY_NAME["DescribeShareGroupOffsets"].clients:
        describe("of a group", GROUP, TOPIC, version)
        describe("of all topics of a group", GROUP, None, version)
        describe("of no group", "no-such-group", TOPIC, version)
        describe("of another kind of group", "consumer-1", TOPIC, version)
        describe("of no topic", GROUP, UNKNOWN, version)
    ask("of a group", _altering(GROUP, TOPIC), 0)
    ask("of no topic", _altering(GROUP, UNKNOWN), 0)
    ask("of no partition", _altering(GROUP, TOPIC, partition=99), 0)
    ask("of another kind of group", _altering("consumer-1", TOPIC), 0)
    ask("of no topic", _deleting(GROUP, UNKNOWN), 0)
    ask("of a group", _deleting(GROUP, TOPIC), 0)
    ask("of no group", _deleting("no-such-group", TOPIC), 0)
    ask("of another kind of group", _deleting("consumer-1", TOPIC), 0)


def _state(ask: Ask, topic_id: UUID, version: int) -> None:
    """Share coordinators: state and leader epochs, state batches, and what no leader has initialized."""
    number = version
    first, second = ({"topic_id": each} for each in (topic_id, UNKNOWN_ID))

    def initialize(name: str, where: Any, epoch: int, start_offset: int) -> None:
        part = initialization.PartitionData.make(partition=number, state_epoch=epoch, start_offset=start_offset)
        data = initialization.InitializeStateData.make(**where, partitions=[part])
        ask(
            f"{name}, {version}",
            initialization.InitializeShareGroupStateRequestData.make(group_id=STATED, topics=[data]),
            0,
        )

    def write(name: str, where: Any, *, state_epoch: int, leader_epoch: int, partition: int = number) -> None:
        batch = writing.StateBatch.make(first_offset=4, last_offset=6, delivery_state=2, delivery_count=1)
        part = writing.PartitionData.make(
            partition=partition,
            state_epoch=state_epoch,
            leader_epoch=leader_epoch,
            start_offset=3,
            delivery_complete_count=3,
            state_batches=[batch],
        )
        data = writing.WriteStateData.make(**where, partitions=[part])
        ask(name, writing.WriteShareGroupStateRequestData.make(group_id=STATED, topics=[data]), version)

    def read(name: str, where: Any, leader_epoch: int) -> None:
        part = reading.PartitionData.make(partition=number, leader_epoch=leader_epoch)
        data = reading.ReadStateData.make(**where, partitions=[part])
        ask(f"{name}, {version}", reading.ReadShareGroupStateRequestData.make(group_id=STATED, topics=[data]), 0)

    def summarize(name: str, where: Any, leader_epoch: int) -> None:
        part = summary.PartitionData.make(partition=number, leader_epoch=leader_epoch)
        data = summary.ReadStateSummaryData.make(**where, partitions=[part])
        ask(name, summary.ReadShareGroupStateSummaryRequestData.make(group_id=STATED, topics=[data]), version)

    write("before it is initialized", first, state_epoch=5, leader_epoch=0)
    initialize("a share partition", first, 5, 3)
    initialize("an older state epoch", first, 4, 3)
    initialize("of no topic", second, 5, 3)
    read("a leader", first, 1)
    read("an older leader", first, 0)
    read("of no topic", second, 1)
    write("a state", first, state_epoch=5, leader_epoch=1)
    write("of an older state epoch", first, state_epoch=4, leader_epoch=1)
    write("of an older leader", first, state_epoch=5, leader_epoch=0)
    write("of no topic", second, state_epoch=5, leader_epoch=1)
    read("what was written", first, 1)
    summarize("of a share partition", first, 1)
    summarize("of no topic", second, 1)
    for name, where in (("a share partition", first), ("of no topic", second)):
        gone = deletion.DeleteStateData.make(**where, partitions=[deletion.PartitionData.make(partition=number)])
        ask(f"{name}, {version}", deletion.DeleteShareGroupStateRequestData.make(group_id=STATED, topics=[gone]), 0)
    summarize("after its deletion", first, 1)
