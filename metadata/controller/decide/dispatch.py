"""`decide`: the only function that turns an event into a decision. Pure; replay does not use it."""

from __future__ import annotations

import random

from metadata.controller.decide import (
    acls,
    brokers,
    client_quotas,
    configs,
    elections,
    isr,
    producer_ids,
    reassignment,
    routes,
    topics,
    users,
)
from metadata.controller.decide.broker_heartbeats import Liveness
from metadata.controller.decide.decision import ControllerState, Decision
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
    AlterClientQuotas,
    AlterConfigs,
    AlterPartition,
    AlterReassignments,
    AlterRoute,
    AlterUsers,
    BrokerHeartbeat,
    ControllerRequest,
    CreateAcls,
    CreatePartitions,
    CreateTopics,
    DeleteAcls,
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
    controller = ControllerState(
        image=image, liveness=liveness, now_ms=now_ms, settings=settings, rng=rng, cluster_id=cluster_id
    )
    match request:
        case SessionsTick():
            return brokers.check_sessions(controller, request)
        case ActivationEvent():
            return brokers.activate(controller)
        case ExpiredHeartbeat():
            return brokers.renew_session(controller, request)
        case BrokerDisconnected():
            return brokers.note_disconnection(controller, request)
        case BrokerUnreachable():
            return brokers.fence_unreachable(controller, request)
        case LogEndsLearned():
            return elections.learn_log_ends(controller, request)
        case PreferredElectionTick():
            return elections.elect_preferred_now_and_then(controller)
        case UncleanSweepTick():
            return elections.sweep_offline(controller)
    return _decide_request(controller, request)


def _decide_request(controller: ControllerState, request: ControllerRequest) -> Decision:
    match request:
        case BrokerHeartbeat():
            return brokers.heartbeat(controller, request)
        case RegisterBroker():
            return brokers.register_broker(controller, request)
        case AlterPartition():
            return isr.alter_partition(controller, request)
        case ElectLeaders():
            return elections.elect_leaders(controller, request)
        case AlterReassignments():
            return reassignment.alter_reassignments(controller, request)
        case CreateTopics():
            return topics.create_topics(controller, request)
        case DeleteTopics():
            return topics.delete_topics(controller, request)
        case CreatePartitions():
            return topics.create_partitions(controller, request)
        case AlterConfigs():
            return configs.alter_configs(controller, request)
        case ReplaceConfigs():
            return configs.replace_configs(controller, request)
        case CreateAcls():
            return acls.create_acls(controller, request)
        case DeleteAcls():
            return acls.delete_acls(controller, request)
        case AlterClientQuotas():
            return client_quotas.alter_client_quotas(controller, request)
        case AlterUsers():
            return users.alter_users(controller, request)
        case AlterRoute():
            return routes.alter_route(controller, request)
        case AllocateProducerIds():
            return producer_ids.allocate_producer_ids(controller, request)
        case UnregisterBroker():
            return brokers.unregister_broker(controller, request)
        case DescribeQuorum():
            return brokers.describe_quorum(controller)
