"""DescribeQuorum (55, KIP-595, KIP-836): how far the nodes have the metadata log.

Between nodes, whose clocks may differ, the two timestamps of a replica are ages in ms. All replicas are in the place
of the voters: who votes is known to everybody from the configuration.
"""

from __future__ import annotations

from kraft.protocol import apis
from kraft.protocol.messages import describe_quorum_request, describe_quorum_response
from kraft.protocol.messages.describe_quorum_request import DescribeQuorumRequestData
from kraft.protocol.messages.describe_quorum_response import DescribeQuorumResponseData, ReplicaState
from kraft.wire.messages.common import ServedRpc
from metadata.controller.requests import DescribeQuorum, NodeProgress, QuorumProgress
from metadata.internal_topics import METADATA_TOPIC


def _request(request: DescribeQuorum, timeout_ms: int) -> DescribeQuorumRequestData:
    partition = describe_quorum_request.PartitionData.make(partition_index=0)
    topic = describe_quorum_request.TopicData.make(topic_name=METADATA_TOPIC, partitions=[partition])
    return DescribeQuorumRequestData.make(topics=[topic])


def _reply(request: DescribeQuorum, reply: QuorumProgress) -> DescribeQuorumResponseData:
    partition = describe_quorum_response.PartitionData.make(
        error_message=None,
        leader_id=reply.leader_id,
        leader_epoch=reply.leader_epoch,
        high_watermark=reply.high_watermark,
        current_voters=[
            ReplicaState.make(
                replica_id=node.node_id,
                log_end_offset=node.log_end_offset,
                last_fetch_timestamp=node.heard_ms_ago,
                last_caught_up_timestamp=node.caught_up_ms_ago,
            )
            for node in reply.nodes
        ],
    )
    topic = describe_quorum_response.TopicData.make(topic_name=METADATA_TOPIC, partitions=[partition])
    return DescribeQuorumResponseData.make(error_message=None, topics=[topic])


def _progress(request: DescribeQuorum, message: DescribeQuorumResponseData) -> QuorumProgress:
    partition = message.topics[0].partitions[0]
    return QuorumProgress(
        leader_id=partition.leader_id,
        leader_epoch=partition.leader_epoch,
        high_watermark=partition.high_watermark,
        nodes=tuple(
            NodeProgress(
                node_id=node.replica_id,
                log_end_offset=node.log_end_offset,
                heard_ms_ago=node.last_fetch_timestamp,
                caught_up_ms_ago=node.last_caught_up_timestamp,
            )
            for node in partition.current_voters
        ),
    )


DESCRIPTION: ServedRpc[DescribeQuorum, QuorumProgress, DescribeQuorumRequestData, DescribeQuorumResponseData] = (
    ServedRpc(
        api=apis.DESCRIBE_QUORUM,
        response=DescribeQuorumResponseData,
        to_request=_request,
        from_request=lambda message: DescribeQuorum(),
        to_reply=_reply,
        from_reply=_progress,
        refuse=lambda message, code: DescribeQuorumResponseData.make(error_code=code),
    )
)
