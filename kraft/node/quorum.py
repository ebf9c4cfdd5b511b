"""This node's copy of the metadata log: a voter's in the Raft quorum, or an observer's that pulls from the voters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from kraft.config.models import ClusterConfig
from kraft.layout import METADATA_FOLDER
from kraft.node import tls_policy
from kraft.node.tls_policy import Certificates
from kraft.wire.channels.metadata_log import MetadataSourceChannel
from kraft.wire.peers import Peers
from metadata.environment import Environment
from metadata.events import Events
from metadata.quorum.config import QuorumConfig
from metadata.quorum.log import MetadataLog
from metadata.quorum.observer import ObserverLog
from metadata.quorum.raft_host import QuorumHost
from metadata.quorum.raft_log import RaftMetadataLog
from metadata.watchdog import WatchedProcess


class HostedQuorum(QuorumHost, Protocol):
    """A place for the Raft half, with the environment of its loop, and the main loop's process as seen from there."""

    @property
    def environment(self) -> Environment: ...
    @property
    def process(self) -> WatchedProcess: ...


def voter_log(
    config: ClusterConfig,
    node_id: int,
    *,
    environment: Environment,
    host: HostedQuorum,
    events: Events,
    on_fatal: Callable[[BaseException], None],
    is_hanging: Callable[[], bool],
    certificates: Certificates | None,
) -> RaftMetadataLog:
    node = config.node(node_id)
    settings = config.broker_settings(node_id)
    found = {voter.id: config.address(node_id, voter.id, "quorum") for voter in config.voters}
    quorum = QuorumConfig(
        cluster_id=config.cluster_id,
        node_id=node_id,
        key=config.keys.quorum,
        voters={voter_id: (address.host, address.port) for voter_id, address in found.items()},
        listen=(node.bind_host, node.quorum_port),
        directory=f"{node.data}/{METADATA_FOLDER}",
        election_timeout_ms=settings.controller_quorum_election_timeout_ms,
        snapshot_bytes=settings.metadata_log_max_record_bytes_between_snapshots,
        listen_tls=tls_policy.quorum_port_tls(config, node, certificates),
        dial_tls={
            voter.id: tls for voter in config.voters if (tls := tls_policy.dial_tls(config, voter, certificates))
        },
    )
    return RaftMetadataLog(
        environment,
        quorum,
        raft_environment=host.environment,
        host=host,
        events=events,
        on_fatal=on_fatal,
        is_hanging=is_hanging,
    )


def observer_log(
    config: ClusterConfig,
    node_id: int,
    *,
    environment: Environment,
    peers: Peers,
    events: Events,
    on_fatal: Callable[[BaseException], None],
) -> MetadataLog:
    settings = config.broker_settings(node_id)
    return ObserverLog(
        environment,
        cluster_id=config.cluster_id,
        node_id=node_id,
        directory=f"{config.node(node_id).data}/{METADATA_FOLDER}",
        voters=[voter.id for voter in config.voters],
        source=MetadataSourceChannel(peers, cluster_id=config.cluster_id),
        snapshot_bytes=settings.metadata_log_max_record_bytes_between_snapshots,
        events=events,
        on_fatal=on_fatal,
    )
