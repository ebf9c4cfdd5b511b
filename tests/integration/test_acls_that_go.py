"""An ACL that is deleted while a request waits that it has allowed: groups answer it as Kafka does, and refuse the next
one; fetches end with error 29 within a second, as what is written from then on is not for their client."""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from kraft.protocol.codec import decode_body, encode_body
from kraft.protocol.encoding import TopLevel
from kraft.protocol.messages.fetch_request import FetchPartition, FetchRequestData, FetchTopic
from kraft.protocol.messages.heartbeat_request import HeartbeatRequestData
from kraft.protocol.messages.join_group_request import JoinGroupRequestData, JoinGroupRequestProtocol
from kraft.protocol.messages.share_fetch_request import FetchPartition as SharePartition
from kraft.protocol.messages.share_fetch_request import FetchTopic as ShareTopic
from kraft.protocol.messages.share_fetch_request import ShareFetchRequestData
from kraft.protocol.messages.share_group_heartbeat_request import ShareGroupHeartbeatRequestData
from kraft.protocol.messages.sync_group_request import SyncGroupRequestAssignment, SyncGroupRequestData
from metadata.acls import Acl, AclFilter, AclOperation, AclPattern, AclPermission, AclResource
from metadata.controller.requests import CreateAcls, DeleteAcls
from tests.clients.golden.peer import Peer, response_type
from tests.integration.support.waiting import wait_until
from tests.support.dense_frames import KNOWN
from tests.support.measured_node import HOST, MeasuredNode

pytestmark = pytest.mark.long

TOPIC, GROUP = AclResource.TOPIC, AclResource.GROUP
UNKNOWN_MEMBER, TOPIC_REFUSED, GROUP_REFUSED = 25, 29, 30
JOIN, SYNC, BEAT, FETCH, SHARE = 3, 2, 1, 12, 1
"""Versions."""
STAYS, GOES = HOST, "127.0.0.2"
"""Addresses of clients: one whose ACLs stay, and one whose ACLs are deleted. On a PLAINTEXT port both are ANONYMOUS."""
WAIT_MS = 30_000
SOON_S = 5
DEADLINE_S = 30


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeasuredNode]:
    settings = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "group.initial.rebalance.delay.ms": 1_000,
    }
    with MeasuredNode(tmp_path_factory.mktemp("measured"), **settings) as node:
        yield node


class Client(Peer):
    """A client at one of the addresses."""

    def __init__(self, node: MeasuredNode, source: str = GOES) -> None:
        super().__init__((HOST, node.port))
        self._socket = self.socket = socket.create_connection(
            self.address, timeout=DEADLINE_S, source_address=(source, 0)
        )

    def of(self, request: TopLevel, version: int) -> Any:
        self.begin(request, version)
        return self.end(request, version)

    def begin(self, request: TopLevel, version: int) -> None:
        self._send(request, version, b"".join(encode_body(request, version)))

    def end(self, request: TopLevel, version: int) -> Any:
        answer = self._receive(request, version, self._correlation_id)
        return decode_body(response_type(type(request)), version, memoryview(answer), 0)

    @property
    def waits(self) -> bool:
        """Nothing has come yet."""
        return not select.select([self.socket], [], [], 0)[0]


def allow(node: MeasuredNode, resource: AclResource, name: str, host: str = GOES) -> None:
    acl = Acl(
        resource=resource, name=name, pattern=AclPattern.LITERAL, principal="User:ANONYMOUS", host=host,
        operation=AclOperation.READ, permission=AclPermission.ALLOW,
    )  # fmt: skip
    node.control(CreateAcls(acls=(acl,)))
    wait_until(lambda: acl in acls(node))


def revoke(node: MeasuredNode, name: str) -> None:
    """All that the client that loses its ACLs may do with what has this name."""
    node.control(DeleteAcls(filters=(AclFilter(name=name, host=GOES),)))
    wait_until(lambda: not any(acl.name == name and acl.host == GOES for acl in acls(node)))


def acls(node: MeasuredNode) -> list[Acl]:
    assert node.node is not None
    return list(node.node.publisher.image.acls.values())


def join(group: str) -> JoinGroupRequestData:
    return JoinGroupRequestData.make(
        group_id=group,
        session_timeout_ms=45_000,
        rebalance_timeout_ms=60_000,
        protocol_type="consumer",
        protocols=[JoinGroupRequestProtocol.make(name="range", metadata=b"m")],
    )


def sync(group: str, joined: Any, *, assigned: tuple[str, ...] = ()) -> SyncGroupRequestData:
    return SyncGroupRequestData.make(
        group_id=group,
        generation_id=joined.generation_id,
        member_id=joined.member_id,
        assignments=[SyncGroupRequestAssignment.make(member_id=each, assignment=each.encode()) for each in assigned],
    )


def wait_until_served(client: Client, group: str) -> None:
    """The group's coordinator has loaded: before, it answers a JoinGroup at once with an error."""
    beat = HeartbeatRequestData.make(group_id=group, generation_id=0, member_id="nobody")
    wait_until(lambda: client.of(beat, BEAT).error_code == UNKNOWN_MEMBER)


def group_names(node: MeasuredNode) -> set[str]:
    assert node.node is not None
    listed = asyncio.run_coroutine_threadsafe(node.node.groups.list_all(), node.loop).result(DEADLINE_S)
    return {each.group for each in listed}


def test_a_join_group_that_waits_is_answered_and_the_sync_group_refused(node: MeasuredNode) -> None:
    allow(node, GROUP, "joins")
    with closing(Client(node)) as client:
        wait_until_served(client, "joins")
        client.begin(join("joins"), JOIN)
        revoke(node, "joins")
        assert client.waits
        joined = client.end(join("joins"), JOIN)
        assert (joined.error_code, joined.leader) == (0, joined.member_id)
        assert client.of(sync("joins", joined, assigned=(joined.member_id,)), SYNC).error_code == GROUP_REFUSED


def test_a_sync_group_that_waits_is_answered_and_the_heartbeat_refused(node: MeasuredNode) -> None:
    for host in (STAYS, GOES):
        allow(node, GROUP, "syncs", host)
    with closing(Client(node, STAYS)) as leading, closing(Client(node)) as following:
        wait_until_served(leading, "syncs")
        leading.begin(join("syncs"), JOIN)
        wait_until(lambda: "syncs" in group_names(node))
        follows = following.of(join("syncs"), JOIN)
        leads = leading.end(join("syncs"), JOIN)
        assert follows.leader == leads.leader == leads.member_id
        following.begin(sync("syncs", follows), SYNC)
        revoke(node, "syncs")
        assert following.waits
        both = (leads.member_id, follows.member_id)
        assert leading.of(sync("syncs", leads, assigned=both), SYNC).assignment == leads.member_id.encode()
        synced = following.end(sync("syncs", follows), SYNC)
        assert (synced.error_code, bytes(synced.assignment)) == (0, follows.member_id.encode())
        beat = HeartbeatRequestData.make(
            group_id="syncs", generation_id=follows.generation_id, member_id=follows.member_id
        )
        assert following.of(beat, BEAT).error_code == GROUP_REFUSED


def test_a_fetch_that_waits_ends_with_the_error(node: MeasuredNode) -> None:
    allow(node, TOPIC, KNOWN)
    fetch = FetchRequestData.make(
        max_wait_ms=WAIT_MS,
        min_bytes=1,
        topics=[FetchTopic.make(topic=KNOWN, partitions=[FetchPartition.make(partition_max_bytes=1_000)])],
    )
    with closing(Client(node)) as client:
        client.begin(fetch, FETCH)
        begun_s = time.monotonic()
        revoke(node, KNOWN)
        [topic] = client.end(fetch, FETCH).responses
        assert [each.error_code for each in topic.partitions] == [TOPIC_REFUSED]
        assert time.monotonic() - begun_s < SOON_S


def test_a_share_fetch_that_waits_ends_with_the_error(node: MeasuredNode) -> None:
    allow(node, GROUP, "shares")
    allow(node, TOPIC, KNOWN)
    member = "AAAAAAAAAAAAAAAAAAAABw"
    beat = ShareGroupHeartbeatRequestData.make(group_id="shares", member_id=member, subscribed_topic_names=[KNOWN])
    assert node.node is not None
    fetch = ShareFetchRequestData.make(
        group_id="shares", member_id=member, max_wait_ms=WAIT_MS, min_bytes=1, max_records=10, batch_size=10,
        topics=[
            ShareTopic.make(
                topic_id=node.node.publisher.image.topic_ids[KNOWN], partitions=[SharePartition.make()]
            )
        ],
    )  # fmt: skip
    with closing(Client(node)) as client:
        wait_until(lambda: (assigned := client.of(beat, SHARE).assignment) and assigned.topic_partitions)
        client.begin(fetch, SHARE)
        begun_s = time.monotonic()
        revoke(node, KNOWN)
        ended = client.end(fetch, SHARE)
        assert ended.error_code == 0
        assert [each.error_code for topic in ended.responses for each in topic.partitions] == [TOPIC_REFUSED]
        assert time.monotonic() - begun_s < SOON_S
        revoke(node, "shares")
        fetch.share_session_epoch = 1
        assert client.of(fetch, SHARE).error_code == GROUP_REFUSED
