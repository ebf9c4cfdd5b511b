"""`decide`: the only function that turns an event into a decision. Pure; replay does not use it."""

from __future__ import annotations

import random

from metadata.controller.decide import brokers, configs, elections, isr, producer_ids, reassignment, topics
from metadata.controller.decide.broker_heartbeats import Liveness
from metadata.controller.decide.decision import Decision, Situation
from metadata.controller.decide.events import (
    ActivationEvent,
    BrokerDisconnected,
    BrokerUnreachable,
    ExpiredHeartbeat,
    Input,
    LogEndsLearned,
    PreferredElectionTick,
    SessionsTick,
    UncleanSweepTick,
)
from metadata.controller.requests import (
    AllocateProducerIds,
    AlterConfigs,
    AlterPartition,
    AlterReassignments,
    BrokerHeartbeat,
    ControllerRequest,
    CreatePartitions,
    CreateTopics,
    DeleteTopics,
    DescribeQuorum,
    ElectLeaders,
    RegisterBroker,
    ReplaceConfigs,
    UnregisterBroker,
)
from metadata.image import MetadataImage
from metadata.settings import BrokerSettings


def decide(
    image: MetadataImage,
    liveness: Liveness,
    request: Input,
    *,
    now_ms: int,
    settings: BrokerSettings,
    rng: random.Random,
    cluster_id: str,
) -> Decision:
    """Decide a request or event on exactly this image. Raises the KafkaError that refuses it."""
    situation = Situation(
        image=image, liveness=liveness, now_ms=now_ms, settings=settings, rng=rng, cluster_id=cluster_id
    )
    match request:
        case SessionsTick():
            return brokers.check_sessions(situation, request)
        case ActivationEvent():
            return brokers.activate(situation)
        case ExpiredHeartbeat():
            return brokers.renew_session(situation, request)
        case BrokerDisconnected():
            return brokers.note_disconnection(situation, request)
        case BrokerUnreachable():
            return brokers.fence_unreachable(situation, request)
        case LogEndsLearned():
            return elections.learn_log_ends(situation, request)
        case PreferredElectionTick():
            return elections.elect_preferred_now_and_then(situation)
        case UncleanSweepTick():
            return elections.sweep_offline(situation)
    return _decide_request(situation, request)


def _decide_request(situation: Situation, request: ControllerRequest) -> Decision:
    match request:
        case BrokerHeartbeat():
            return brokers.heartbeat(situation, request)
        case RegisterBroker():
            return brokers.register_broker(situation, request)
        case AlterPartition():
            return isr.alter_partition(situation, request)
        case ElectLeaders():
            return elections.elect_leaders(situation, request)
        case AlterReassignments():
            return reassignment.alter_reassignments(situation, request)
        case CreateTopics():
            return topics.create_topics(situation, request)
        case DeleteTopics():
            return topics.delete_topics(situation, request)
        case CreatePartitions():
            return topics.create_partitions(situation, request)
        case AlterConfigs():
            return configs.alter_configs(situation, request)
        case ReplaceConfigs():
            return configs.replace_configs(situation, request)
        case AllocateProducerIds():
            return producer_ids.allocate_producer_ids(situation, request)
        case UnregisterBroker():
            return brokers.unregister_broker(situation, request)
        case DescribeQuorum():
            return brokers.describe_quorum(situation)
