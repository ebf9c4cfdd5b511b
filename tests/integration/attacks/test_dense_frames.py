"""Requests with as many items as fit: none of them holds the event loop or takes memory that its length does not pay
for, whichever API, version and array it is."""

from __future__ import annotations

import logging
import struct
import tracemalloc
from collections.abc import Iterator
from itertools import islice

import pytest

from kraft.launcher.secured import AUTHORIZER
from kraft.protocol import apis, codec
from kraft.protocol.encoding import TopLevel
from kraft.protocol.messages.describe_configs_request import DescribeConfigsRequestData, DescribeConfigsResource
from kraft.protocol.messages.fetch_request import FetchPartition, FetchRequestData, FetchTopic
from kraft.protocol.messages.list_offsets_request import ListOffsetsPartition, ListOffsetsRequestData, ListOffsetsTopic
from kraft.protocol.messages.metadata_request import MetadataRequestData, MetadataRequestTopic
from kraft.protocol.messages.offset_commit_request import (
    OffsetCommitRequestData,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from kraft.protocol.messages.offset_fetch_request import (
    OffsetFetchRequestData,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
)
from kraft.wire.handler_table import ROWS
from metadata.acls import Acl, AclOperation, AclPattern, AclPermission, AclResource
from metadata.controller.requests import CreateAcls
from tests.support.dense_frames import (
    API_VERSIONS,
    KNOWN,
    DenseFrame,
    Shape,
    frames,
    long_arrays,
    shapes,
    short_name,
    versions,
)
from tests.support.measured_node import MeasuredNode

TURN_MS_MAX = 50
MEMORY_FACTOR = 8
MEMORY_BYTES = 1024 * 1024
TRIES = 3
"""A turn that is too long only once was that of something else."""
SLOW_S = 3_600
"""A MiB of items takes seconds, and more while memory is traced: dozens of frames for each of up to 19 versions."""
KEYS = (API_VERSIONS, *ROWS)
KIB = 1024


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeasuredNode]:
    logging.disable(logging.CRITICAL)
    try:
        with MeasuredNode(tmp_path_factory.mktemp("measured")) as node:
            yield node
    finally:
        logging.disable(logging.NOTSET)


PREFIXES = "abcdefghijklmnopqrt"
"""What the names begin with that the restricted client may use: half of the names of a frame, and `KNOWN`."""
GUARDED = ("Metadata", "DeleteTopics", "DeleteGroups")
"""APIs whose items are checked before them, and whose answers are changed after them; all come in the slow test."""


@pytest.fixture(scope="module", params=[PREFIXES, ""], ids=["a half", "nothing"])
def guarded_node(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[MeasuredNode]:
    """A node with an authorizer; the ACLs allow a client without a login a half of what it asks for, or nothing."""
    logging.disable(logging.CRITICAL)
    settings = {"authorizer.class.name": AUTHORIZER}
    try:
        with MeasuredNode(tmp_path_factory.mktemp("guarded"), **settings) as node:
            kinds = (AclResource.TOPIC, AclResource.GROUP, AclResource.TRANSACTIONAL_ID)
            acls = [_acl(kind, prefix) for kind in kinds for prefix in request.param]
            assert not acls or not any(node.control(CreateAcls(acls=tuple(acls))))
            yield node
    finally:
        logging.disable(logging.NOTSET)


def _acl(resource: AclResource, prefix: str) -> Acl:
    return Acl(
        resource=resource,
        name=prefix,
        pattern=AclPattern.PREFIXED,
        principal="User:ANONYMOUS",
        host="*",
        operation=AclOperation.ALL,
        permission=AclPermission.ALLOW,
    )


@pytest.mark.long
def test_what_the_acls_refuse_is_not_remembered_for_ever(guarded_node: MeasuredNode) -> None:
    key = apis.BY_NAME["OffsetForLeaderEpoch"].key
    hold(guarded_node, long_arrays(key, versions(key)[-1], size=128 * KIB, all_keys=["distinct"], paths=[("topics",)]))


@pytest.mark.long
@pytest.mark.parametrize("name", GUARDED)
def test_a_dense_frame_of_a_restricted_client_costs_little(guarded_node: MeasuredNode, name: str) -> None:
    key = apis.BY_NAME[name].key
    hold(guarded_node, frames(key, versions(key)[-1], size=64 * KIB))


@pytest.mark.long
@pytest.mark.parametrize("key", KEYS, ids=lambda key: apis.BY_KEY[key].name)
def test_a_dense_frame_costs_little(node: MeasuredNode, key: int) -> None:
    """The newest version: the others are read and handled by the same code, and come in the slow test."""
    hold(node, frames(key, versions(key)[-1], size=64 * KIB))


@pytest.mark.slow
@pytest.mark.timeout(SLOW_S)
@pytest.mark.parametrize("key", KEYS, ids=lambda key: apis.BY_KEY[key].name)
@pytest.mark.parametrize("size", [8 * KIB, 64 * KIB])
def test_a_dense_frame_of_each_version_costs_little(node: MeasuredNode, key: int, size: int) -> None:
    for version in versions(key):
        hold(node, frames(key, version, size=size))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each shape of each version; only where they are asked for: to find them takes seconds."""
    if "shape" not in metafunc.fixturenames:
        return
    asked = str(metafunc.config.getoption("markexpr"))
    is_asked_for = "slow" in asked and "not slow" not in asked
    every = ((key, version) for key in KEYS for version in versions(key))
    some = every if is_asked_for else islice(every, 1)
    metafunc.parametrize("shape", [each for key, version in some for each in shapes(key, version)], ids=_shape_id)


def _shape_id(shape: Shape) -> str:
    return f"{apis.BY_KEY[shape.key].name}-v{shape.version}-{shape}"


@pytest.mark.slow
@pytest.mark.timeout(SLOW_S)
def test_a_dense_frame_of_a_mib_costs_little(node: MeasuredNode, shape: Shape) -> None:
    frame = shape.frame(size=1024 * KIB)
    assert frame is not None, shape
    hold(node, iter([frame]))


@pytest.mark.slow
@pytest.mark.timeout(SLOW_S)
@pytest.mark.parametrize("key", KEYS, ids=lambda key: apis.BY_KEY[key].name)
def test_a_dense_frame_of_each_api_of_a_restricted_client_costs_little(guarded_node: MeasuredNode, key: int) -> None:
    hold(guarded_node, frames(key, versions(key)[-1], size=64 * KIB))


@pytest.mark.slow
@pytest.mark.timeout(SLOW_S)
def test_a_dense_frame_of_a_mib_of_a_restricted_client_costs_little(guarded_node: MeasuredNode, shape: Shape) -> None:
    frame = shape.frame(size=1024 * KIB)
    assert frame is not None, shape
    hold(guarded_node, iter([frame]))


CLASSIC = "of a large cluster"
"""A group that no dense frame makes a share group: that one has no committed offsets."""
NEEDED = {
    "OffsetFetch": OffsetFetchRequestData.make(
        groups=[
            OffsetFetchRequestGroup.make(
                group_id=CLASSIC, topics=[OffsetFetchRequestTopics.make(name=KNOWN, partition_indexes=range(20_000))]
            )
        ]
    ),
    "OffsetCommit": OffsetCommitRequestData.make(
        group_id=CLASSIC,
        topics=[
            OffsetCommitRequestTopic.make(
                name=KNOWN,
                partitions=[
                    OffsetCommitRequestPartition.make(partition_index=n, committed_offset=1) for n in range(20_000)
                ],
            )
        ],
    ),
    "ListOffsets": ListOffsetsRequestData.make(
        replica_id=-1,
        topics=[
            ListOffsetsTopic.make(
                name=KNOWN,
                partitions=[ListOffsetsPartition.make(partition_index=n, timestamp=-1) for n in range(20_000)],
            )
        ],
    ),
    "Metadata": MetadataRequestData.make(
        topics=[MetadataRequestTopic.make(name=f"topic-{n}") for n in range(10_000)], allow_auto_topic_creation=False
    ),
    "Fetch": FetchRequestData.make(
        replica_id=-1,
        max_wait_ms=100,
        min_bytes=1,
        topics=[
            FetchTopic.make(
                topic=KNOWN,
                partitions=[
                    FetchPartition.make(partition=n, fetch_offset=0, partition_max_bytes=1_000) for n in range(20_000)
                ],
            )
        ],
    ),
}
"""What a large cluster's clients ask for at once."""
VERSIONS = {"OffsetFetch": 9, "OffsetCommit": 9, "ListOffsets": 10, "Metadata": 12, "Fetch": 12}
BYTES_AN_ITEM = 8


@pytest.mark.long
@pytest.mark.parametrize("name", NEEDED)
def test_what_large_clusters_need_is_answered(node: MeasuredNode, name: str) -> None:
    message, version = NEEDED[name], VERSIONS[name]
    frame = DenseFrame(name, version, "needed", framed(message, version))
    turn_ms, answered = node.turn_ms(frame.data)
    assert answered > 10_000 * BYTES_AN_ITEM, "the connection was closed, or the request refused"
    assert turn_ms <= TURN_MS_MAX or _turn_ms(node, frame) <= TURN_MS_MAX


def framed(message: TopLevel, version: int) -> bytes:
    head = struct.pack(">hhih", message.API_KEY, version, 7, -1) + b"\0"
    return head + b"".join(codec.encode_body(message, version))


BROKER, CLIENT_METRICS, GROUP = 4, 16, 32
"""Types of resources."""
DESCRIBED_GROUPS = 128
DESCRIBE_CONFIGS_VERSION = 4


def describing(kind: int, count: int) -> DenseFrame:
    """Asks for all there is to know about the settings of `count` resources. A node has one broker: itself."""
    names = ["1" if kind == BROKER else short_name(number) for number in range(count)]
    message = DescribeConfigsRequestData.make(
        resources=[
            DescribeConfigsResource.make(resource_type=kind, resource_name=name, configuration_keys=None)
            for name in names
        ],
        include_synonyms=True,
        include_documentation=True,
    )
    version = DESCRIBE_CONFIGS_VERSION
    return DenseFrame("DescribeConfigs", version, f"{count} of type {kind}", framed(message, version))


@pytest.mark.long
@pytest.mark.parametrize("kind", [BROKER, CLIENT_METRICS, GROUP])
def test_settings_of_many_resources_cost_little(node: MeasuredNode, kind: int) -> None:
    """A group has settings whether there is one of that name or not, and what is known of them takes kilobytes."""
    hold(node, iter([describing(kind, count) for count in (100, 129, 900, 7_000)]))


@pytest.mark.long
def test_settings_of_some_groups_are_described(node: MeasuredNode) -> None:
    _, answered = node.turn_ms(describing(GROUP, DESCRIBED_GROUPS).data)
    assert answered > DESCRIBED_GROUPS * 1_000
    _, refused = node.turn_ms(describing(GROUP, DESCRIBED_GROUPS + 1).data)
    assert 0 < refused < DESCRIBED_GROUPS * 100


def hold(node: MeasuredNode, dense: Iterator[DenseFrame]) -> None:
    """Each of the frames to the limits."""
    problems: list[str] = []
    for frame in dense:
        turn_ms = _turn_ms(node, frame)
        if turn_ms > TURN_MS_MAX:
            problems.append(f"{frame}: {turn_ms:.0f} ms between two turns of the loop")
        held = _memory_bytes(node, frame)
        allowed = MEMORY_FACTOR * len(frame.data) + MEMORY_BYTES
        if held > allowed:
            problems.append(f"{frame}: {held} bytes of memory, {allowed:.0f} may be")
    assert not problems, "\n".join(problems)


def _turn_ms(node: MeasuredNode, frame: DenseFrame) -> float:
    shortest = float("inf")
    for _ in range(TRIES):
        shortest = min(shortest, node.turn_ms(frame.data)[0])
        if shortest <= TURN_MS_MAX:
            break
    return shortest


def _memory_bytes(node: MeasuredNode, frame: DenseFrame) -> int:
    tracemalloc.start()
    try:
        return node.memory_bytes(frame.data)
    finally:
        tracemalloc.stop()
