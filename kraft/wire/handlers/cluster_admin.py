"""DescribeQuorum (55), UpdateFeatures (57, KIP-584) and UnregisterBroker (64): the cluster as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from kraft.broker.features import FEATURES, Feature
from kraft.broker.gateway import Gateway, NodeInfo
from kraft.protocol.encoding import TopLevel
from kraft.protocol.errors import InvalidUpdateVersion, UnknownTopicOrPartition
from kraft.protocol.messages import describe_quorum_response as quorum
from kraft.protocol.messages.describe_quorum_request import DescribeQuorumRequestData
from kraft.protocol.messages.describe_quorum_request import TopicData as AskedTopic
from kraft.protocol.messages.describe_quorum_response import DescribeQuorumResponseData, ReplicaState
from kraft.protocol.messages.unregister_broker_request import UnregisterBrokerRequestData
from kraft.protocol.messages.unregister_broker_response import UnregisterBrokerResponseData
from kraft.protocol.messages.update_features_request import FeatureUpdateKey, UpdateFeaturesRequestData
from kraft.protocol.messages.update_features_response import UpdatableFeatureResult, UpdateFeaturesResponseData
from kraft.wire.api_handler import ApiHandler, Call
from kraft.wire.handlers.control import Control
from kraft.wire.large_requests import written
from kraft.wire.lazy import Lazy
from kraft.wire.node_parts import NodeParts
from metadata.controller.requests import DescribeQuorum, NodeProgress, QuorumProgress, UnregisterBroker
from metadata.internal_topics import METADATA_TOPIC

CONTROLLER_LISTENER = "CONTROLLER"
ASKED_ALONE = f"{METADATA_TOPIC}-0 alone has a quorum, and is asked for alone"
UPGRADE, SAFE_DOWNGRADE, UNSAFE_DOWNGRADE = 1, 2, 3
"""Source: FeatureUpdate.UpgradeType."""
RESULTS_UNTIL = 1
"""Versions up to this one name each feature in their answer."""


def apis(parts: NodeParts) -> Sequence[ApiHandler]:
    handlers = _Cluster(parts)
    return (
        ApiHandler(
            request=DescribeQuorumRequestData,
            response=DescribeQuorumResponseData,
            handle=handlers.describe_quorum,
            refuse=lambda message, version, error: DescribeQuorumResponseData.make(
                error_code=error.code, error_message=error.message
            ),
        ),
        ApiHandler(
            request=UpdateFeaturesRequestData,
            response=UpdateFeaturesResponseData,
            handle=update_features,
            refuse=lambda message, version, error: UpdateFeaturesResponseData.make(
                error_code=error.code, error_message=error.message
            ),
        ),
        ApiHandler(
            request=UnregisterBrokerRequestData,
            response=UnregisterBrokerResponseData,
            handle=handlers.unregister,
            refuse=lambda message, version, error: UnregisterBrokerResponseData.make(
                error_code=error.code, error_message=error.message
            ),
        ),
    )


class _Cluster:
    def __init__(self, parts: NodeParts) -> None:
        self._gateway: Gateway = parts.gateway
        self._control = Control(parts)
        self._parts = parts

    # --- DescribeQuorum ---------------------------------------------------------------------------------------

    async def describe_quorum(self, call: Call[DescribeQuorumRequestData]) -> TopLevel:
        """What the active controller knows. Voters without the broker role do not tell how far they are: -1."""
        asked = (
            (topic.topic_name, partition.partition_index)
            for topic in call.message.topics
            for partition in topic.partitions
        )
        if [*islice(asked, 2)] != [(METADATA_TOPIC, 0)]:
            return written(_not_the_metadata(call.message), call.version)
        progress = await self._control.ask(call, DescribeQuorum())
        voters = [node for node in self._gateway.nodes.values() if node.quorum is not None]
        partition = self._partition(progress, {node.node_id for node in voters})
        topic = quorum.TopicData.make(topic_name=METADATA_TOPIC, partitions=[partition])
        nodes = [_node(node, node.quorum) for node in voters if node.quorum is not None]
        return DescribeQuorumResponseData.make(error_message=None, topics=[topic], nodes=nodes)

    def _partition(self, progress: QuorumProgress, voters: set[int]) -> quorum.PartitionData:
        now_ms = self._parts.environment.clock.wall_ms()
        known = {node.node_id: node for node in progress.nodes}
        observers = sorted(known.keys() - voters)
        return quorum.PartitionData.make(
            error_message=None,
            leader_id=progress.leader_id,
            leader_epoch=progress.leader_epoch,
            high_watermark=progress.high_watermark,
            current_voters=[
                _replica(known.get(node_id, NodeProgress(node_id=node_id)), now_ms=now_ms) for node_id in sorted(voters)
            ],
            observers=[_replica(known[node_id], now_ms=now_ms) for node_id in observers],
        )

    # --- UnregisterBroker -------------------------------------------------------------------------------------

    async def unregister(self, call: Call[UnregisterBrokerRequestData]) -> UnregisterBrokerResponseData:
        request = UnregisterBroker(broker_id=call.message.broker_id)
        await self._control.ask(call, request)
        return UnregisterBrokerResponseData.make(error_message=None)


def _replica(node: NodeProgress, *, now_ms: int) -> ReplicaState:
    return ReplicaState.make(
        replica_id=node.node_id,
        log_end_offset=node.log_end_offset,
        last_fetch_timestamp=_moment(now_ms, node.heard_ms_ago),
        last_caught_up_timestamp=_moment(now_ms, node.caught_up_ms_ago),
    )


def _moment(now_ms: int, ms_ago: int) -> int:
    return -1 if ms_ago < 0 else now_ms - ms_ago


def _node(node: NodeInfo, address: str) -> quorum.Node:
    host, _, port = address.rpartition(":")
    listener = quorum.Listener.make(name=CONTROLLER_LISTENER, host=host, port=int(port))
    return quorum.Node.make(node_id=node.node_id, listeners=[listener])


def _not_the_metadata(message: DescribeQuorumRequestData) -> DescribeQuorumResponseData:
    topics = message.topics
    return DescribeQuorumResponseData.make(
        error_message=None, topics=Lazy(len(topics), lambda: map(_not_the_metadata_topic, topics))
    )


def _not_the_metadata_topic(topic: AskedTopic) -> quorum.TopicData:
    def each() -> Iterator[quorum.PartitionData]:
        for partition in topic.partitions:
            yield quorum.PartitionData.make(
                partition_index=partition.partition_index,
                error_code=UnknownTopicOrPartition.code,
                error_message=ASKED_ALONE,
            )

    return quorum.TopicData.make(topic_name=topic.topic_name, partitions=Lazy(len(topic.partitions), each))


# --- UpdateFeatures -----------------------------------------------------------------------------------------------


def update_features(call: Call[UpdateFeaturesRequestData]) -> UpdateFeaturesResponseData:
    """All features have their final level already: what asks for another is refused, and with it the whole request."""
    updates = call.message.feature_updates
    features = {feature.name: feature for feature in FEATURES}
    for update in updates:
        problem = _problem(update, features.get(update.feature))
        if problem is not None:
            raise InvalidUpdateVersion(
                f"no feature was updated: level {update.max_version_level} of {update.feature}: {problem}"
            )
    return UpdateFeaturesResponseData.make(
        error_message=None,
        results=[
            UpdatableFeatureResult.make(feature=update.feature, error_message=None)
            for update in (updates if call.version <= RESULTS_UNTIL else ())
        ],
    )


def _problem(update: FeatureUpdateKey, feature: Feature | None) -> str | None:
    level = update.max_version_level
    if update.upgrade_type not in (UPGRADE, SAFE_DOWNGRADE, UNSAFE_DOWNGRADE):
        return f"upgrade type {update.upgrade_type} is none; 1 (upgrade), 2 and 3 (safe and unsafe downgrade) are"
    if feature is None:
        return "there is no such feature here"
    if not feature.oldest <= level <= feature.newest:
        return f"it has levels {feature.oldest} to {feature.newest}"
    if level != feature.final:
        return f"it is {feature.final} and cannot be changed: the level comes with the version that all nodes run"
    return None
