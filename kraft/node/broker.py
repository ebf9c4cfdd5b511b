"""The parts of a node with the broker role: its logs and replicas, its life with the controller, its coordinators."""

from __future__ import annotations

from functools import partial
from typing import Protocol

from kraft.broker.control import AlterPartitionSender, ControllerDoor
from kraft.broker.gateway import Gateway
from kraft.broker.lifecycle import BrokerIdentity, BrokerLifecycle
from kraft.broker.local_partition_client import LocalPartitionClient
from kraft.broker.permissions import permissions_of
from kraft.broker.producer_ids import ProducerIds
from kraft.broker.registered_metadata import RegisteredMetadata
from kraft.broker.transaction_verification import TransactionVerifier
from kraft.broker.transactional_produce import TransactionalProduce
from kraft.broker.txn_markers import MarkerRouter, TxnMarkers
from kraft.coordinators.delayed.forwarder import DelayForwarders
from kraft.coordinators.groups.coordinator import GroupCoordinator
from kraft.coordinators.groups.routing import Groups
from kraft.coordinators.groups.verification import verify_offsets
from kraft.coordinators.shard import CoordinatorContext
from kraft.coordinators.shares.coordinator import ShareCoordinator
from kraft.coordinators.shares.leaders import ShareLeaders
from kraft.coordinators.shares.queue import Queues
from kraft.coordinators.shares.routing import GroupSharePersister, SharePersister
from kraft.coordinators.transactions.coordinator import TransactionCoordinator
from kraft.coordinators.transactions.routing import Transactions
from kraft.node.context import NodeContext
from kraft.node.startup_state import twin_problem
from kraft.wire.channels.replicas import WireLeaderChannel
from kraft.wire.channels.transactions import TransactionChannel
from kraft.wire.node_parts import BrokerParts, ShareParts
from metadata.quorum.log import MetadataLog
from replication.manager.manager import ReplicaManager
from replication.storage.log_manager import LogManager


class Routes(Protocol):
    """A node's ways to the rest of the cluster. They exist once its own parts do."""

    gateway: Gateway
    share_persister: SharePersister
    queues: Queues
    groups: Groups
    transactions: Transactions


def broker_parts(
    context: NodeContext, log: MetadataLog, control: ControllerDoor, verifier: TransactionVerifier, routes: Routes
) -> BrokerParts:
    environment, settings = context.environment, context.publisher.current_settings
    logs = LogManager(
        environment,
        directories=context.node.log_dirs,
        cluster_id=context.config.cluster_id,
        node_id=context.node.id,
        events=context.events,
        settings=settings,
    )
    identity = _identity(context)
    replicas, lifecycle = _replicas(context, identity, logs=logs, log=log, control=control)
    coordinators = _coordinator_context(context, replicas, lifecycle)
    verify, states = partial(verify_offsets, verifier), _states(routes)
    groups = GroupCoordinator(coordinators, context.events, verify=verify, persister=states)
    markers = TxnMarkers(replicas, groups, clock=environment.clock, settings=settings)
    producer_ids = ProducerIds(broker_id=context.node.id, control=control, broker_epoch=lambda: lifecycle.broker_epoch)
    write = marker_router(context, markers).write
    transactions = TransactionCoordinator(
        coordinators, context.events, new_producer_id=producer_ids.next_id, write=write
    )
    shares, delayed = _shares(context, coordinators, routes), _delayed(context, routes)
    transactional_produce = TransactionalProduce(replicas, verifier, environment.clock)
    return BrokerParts(
        logs=logs,
        replicas=replicas,
        lifecycle=lifecycle,
        metadata=RegisteredMetadata(
            broker_id=identity.broker_id,
            incarnation_id=identity.incarnation_id,
            replicas=replicas,
            further=(
                groups.on_metadata,
                lambda _, image: transactions.on_metadata(image),
                shares.on_metadata,
                delayed.on_metadata,
                lambda _, image: lifecycle.on_image(image),
            ),
        ),
        producer_ids=producer_ids,
        group_coordinator=groups,
        transaction_coordinator=transactions,
        shares=shares,
        delayed=delayed,
        markers=markers,
        transactional_produce=transactional_produce,
        client=LocalPartitionClient(replicas, transactional_produce),
    )


async def hand_over(broker: BrokerParts) -> bool:
    """B6, before a stop: other brokers get the leadership of its partitions. False when it keeps some."""
    if broker.lifecycle.can_hand_over:
        await broker.replicas.produce.hand_over()
    has_handed_over = await broker.lifecycle.controlled_shutdown()
    await broker.lifecycle.stop()
    return has_handed_over


async def stop_replicas(broker: BrokerParts) -> None:
    """Stops the coordinators, and then the replicas that they write to."""
    broker.delayed.stop()
    broker.transaction_coordinator.stop()
    broker.shares.leaders.stop()
    broker.shares.coordinator.stop()
    broker.group_coordinator.stop()
    await broker.replicas.stop()


def _states(routes: Routes) -> GroupSharePersister:
    return GroupSharePersister(
        lambda: routes.share_persister, notify=lambda group, partitions: routes.queues.changed(group, partitions)
    )


def _shares(context: NodeContext, coordinators: CoordinatorContext, routes: Routes) -> ShareParts:
    leaders = ShareLeaders(
        coordinators, context.events, persister=lambda: routes.share_persister, gateway=lambda: routes.gateway
    )
    return ShareParts(ShareCoordinator(coordinators, context.events), leaders)


def _delayed(context: NodeContext, routes: Routes) -> DelayForwarders:
    return DelayForwarders(context.node.id, routes, context.environment.clock, context.events)


def marker_router(context: NodeContext, local: TxnMarkers | None) -> MarkerRouter:
    return MarkerRouter(
        node_id=context.node.id,
        local=local,
        remote=lambda node_id, markers: TransactionChannel(context.peers, node_id).write_markers(markers),
    )


def _identity(context: NodeContext) -> BrokerIdentity:
    node = context.node
    return BrokerIdentity(
        cluster_id=context.config.cluster_id,
        broker_id=node.id,
        incarnation_id=context.incarnation_id,
        rest=str(node.rest),
        kafka=str(node.kafka),
        rack=node.rack,
        listeners=node.client_addresses,
    )


def _replicas(
    context: NodeContext, identity: BrokerIdentity, *, logs: LogManager, log: MetadataLog, control: ControllerDoor
) -> tuple[ReplicaManager, BrokerLifecycle]:
    """The two report to each other: failed replicas, and whether this broker is still in office."""
    publisher = context.publisher
    replicas = ReplicaManager(
        context.node.id,
        environment=context.environment,
        logs=logs,
        channels=lambda leader_id: WireLeaderChannel(context.peers, leader_id),
        alter_partition=AlterPartitionSender(control, publisher.current_settings),
        events=context.events,
        settings=publisher.current_settings,
        topic_settings=publisher.topic_settings,
        is_trusted=lambda: lifecycle.is_in_office(),
    )
    lifecycle = BrokerLifecycle(
        identity=identity,
        clock=context.environment.clock,
        control=control,
        image=lambda: publisher.image,
        settings=publisher.current_settings,
        events=context.events,
        on_fatal=context.on_fatal,
        failed_replicas=replicas.failures.report,
        twin=lambda: twin_problem(log),
    )
    replicas.failures.listen(lifecycle.on_failed_replicas)
    return replicas, lifecycle


def _coordinator_context(
    context: NodeContext, replicas: ReplicaManager, lifecycle: BrokerLifecycle
) -> CoordinatorContext:
    publisher = context.publisher
    return CoordinatorContext(
        node_id=context.node.id,
        environment=context.environment,
        replicas=replicas,
        settings=publisher.current_settings,
        topic_settings=publisher.topic_settings,
        image=lambda: publisher.image,
        has_session=lambda: lifecycle.has_session,
        permissions=lambda principal: permissions_of(publisher.authorizer, principal),
    )
