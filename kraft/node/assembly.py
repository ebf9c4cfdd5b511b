"""`Node`: the composition root. Builds every part of one node, starts them in order and stops them in reverse.

Nothing is decided here. The world outside comes in as arguments, so a simulation builds the same node with virtual
time, an in-memory disk and network, no thread for the quorum and no HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Protocol, TypeAlias
from uuid import UUID

from kraft.broker.answer_budget import AnswerBudget
from kraft.broker.control import ControllerDoor
from kraft.broker.gateway import Gateway
from kraft.broker.leaders import LeaderFinder
from kraft.broker.lifecycle import BrokerIdentity, BrokerLifecycle
from kraft.broker.local_partition_client import LocalPartitionClient
from kraft.broker.lost_brokers import LostBrokers
from kraft.broker.metadata_publisher import MetadataPublisher
from kraft.broker.producer_ids import ProducerIds
from kraft.broker.routing import Router
from kraft.broker.tail_waits import Tails
from kraft.broker.transaction_verification import TransactionVerifier
from kraft.broker.transactional_produce import TransactionalProduce
from kraft.broker.txn_markers import TxnMarkers
from kraft.config.models import ClusterConfig, NodeConfig
from kraft.coordinators.groups.coordinator import GroupCoordinator
from kraft.coordinators.groups.requests import CommitInTransaction
from kraft.coordinators.groups.routing import Groups
from kraft.coordinators.groups.verification import verify_offsets
from kraft.coordinators.shard import CoordinatorContext
from kraft.coordinators.transactions.coordinator import TransactionCoordinator
from kraft.coordinators.transactions.routing import Transactions
from kraft.events import EventLog
from kraft.node.addresses import AddressBook, node_infos
from kraft.node.node_watchdog import MainLoopWatch
from kraft.node.quorum import HostedQuorum, observer_log, voter_log
from kraft.node.startup_state import Awaiting, twin_problem
from kraft.protocol.primitives import TopicPartition
from kraft.protocol.transactions import Codes, MarkersToWrite
from kraft.wire.channels import (
    ControllerChannel,
    GroupChannel,
    RemotePartitionClient,
    TransactionChannel,
    WireBrokerProbe,
    WireLeaderChannel,
    WireReplicaQuery,
)
from kraft.wire.handlers.broker import ClientBroker
from kraft.wire.handlers.metadata_log import MetadataFetches
from kraft.wire.handlers.node_apis import NodeApis
from kraft.wire.handlers.table import ClientApis
from kraft.wire.peers import Peers
from kraft.wire.server import ClientListener, WireServer
from metadata.controller.active import ActiveController
from metadata.controller.requests import AlterPartition, ErrorDetail, OfflineReplicas
from metadata.delta import MetadataDelta
from metadata.durable_directories import make_durable_directories
from metadata.environment import Environment
from metadata.events import Events
from metadata.image import MetadataImage, PartitionImage, TopicIdPartition
from metadata.quorum.log import MetadataLog
from metadata.quorum.raft_log import RaftMetadataLog
from metadata.settings import BrokerSettings
from replication.manager.manager import ReplicaManager
from replication.storage.log_manager import LogManager

Step: TypeAlias = tuple[str, Callable[[], Awaitable[None]] | None]
"""Its name, and what it does; None for a part that this node does not have."""


class Door(Protocol):
    """A listener for clients, beside the Kafka one: HTTP. Its port is open while it is started."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


OnFatal = Callable[[BaseException], None]


class Node:
    def __init__(
        self,
        config: ClusterConfig,
        node_id: int,
        *,
        environment: Environment,
        quorum: HostedQuorum,
        door: Callable[[Node], Door] | None,
        on_fatal: OnFatal,
    ) -> None:
        """`door` makes the HTTP listener, if there is one. `on_fatal` must stop the node."""
        self.config = config
        self.node: NodeConfig = config.node(node_id)
        self.environment = environment
        self._quorum = quorum
        self._on_fatal = on_fatal
        self._static = config.static_settings(node_id)
        self.events = EventLog(environment, data=self.node.data, node_id=node_id, lock=quorum.process.lock())
        self.publisher = MetadataPublisher(node_id=node_id, clock=environment.clock, static=self._static)
        self._watch: asyncio.Task[None] | None = None
        self.main_loop = self._make_main_loop_watch()
        self._incarnation_id = UUID(bytes=environment.rng.randbytes(16), version=4)
        self._has_own_registration = False
        addresses = AddressBook(config, node_id=node_id, image=lambda: self.publisher.image)
        self._peers = Peers(environment, node_id=node_id, password=config.keys.password, address=addresses.address)
        self.log = self._make_log()
        self.controller = self._make_controller() if self.node.is_voter else None
        self._control = ControllerDoor(
            clock=environment.clock,
            leadership=lambda: self.publisher.leadership,
            local=self.controller,
            remote=ControllerChannel(self._peers),
        )
        self.logs: LogManager | None = None
        self.replicas: ReplicaManager | None = None
        self.lifecycle: BrokerLifecycle | None = None
        self.coordinator: GroupCoordinator | None = None
        self.transaction_coordinator: TransactionCoordinator | None = None
        self.markers: TxnMarkers | None = None
        self.producer_ids: ProducerIds | None = None
        if self.node.is_broker:
            self._make_broker()
        self.gateway: Gateway = self._make_gateway()
        self.groups = groups_of(self.gateway, environment=environment, coordinator=self.coordinator, peers=self._peers)
        self.transactions = self._make_transactions()
        self.awaiting = self._make_awaiting()
        self.lost_brokers = LostBrokers(self._peers, publisher=self.publisher, clock=environment.clock)
        self._wire = self._make_wire()
        self._door = None if door is None else door(self)
        self._subscribe()

    def _make_awaiting(self) -> Awaiting:
        return Awaiting(
            voters=[voter.id for voter in self.config.voters],
            log=self.log,
            publisher=self.publisher,
            loading=None if self.logs is None else self.logs.loading,
            lifecycle=self.lifecycle,
            has_caught_up=self._has_caught_up,
        )

    def _make_wire(self) -> WireServer:
        self.answers = AnswerBudget(self.publisher.settings.queued_max_response_bytes)
        return wire_server(
            self.config,
            self.node,
            environment=self.environment,
            log=self.log,
            controller=self.controller,
            replicas=self.replicas,
            groups=self.coordinator,
            leader=self.local_leader,
            clients=self._make_client_apis(),
            answers=self.answers,
            settings=self.publisher.settings,
        )

    def _make_client_apis(self) -> ClientApis | None:
        if self.logs is None or self.replicas is None or self.coordinator is None or self.producer_ids is None:
            return None
        assert self.transaction_coordinator is not None
        assert self.markers is not None
        assert self.transactional_produce is not None
        return ClientApis(
            ClientBroker(
                environment=self.environment,
                config=self.config,
                gateway=self.gateway,
                replicas=self.replicas,
                logs=self.logs,
                coordinator=self.coordinator,
                groups=self.groups,
                lost=self.lost_brokers,
                producer_ids=self.producer_ids,
                transactional_produce=self.transactional_produce,
                markers=self.markers,
                transaction_coordinator=self.transaction_coordinator,
                transactions=self.transactions,
                answers=self.answers,
                offline_replicas=self._offline_replicas,
            ),
            awaited=self.awaiting.metadata,
        )

    def _offline_replicas(self) -> OfflineReplicas:
        return {} if self.lifecycle is None else self.lifecycle.offline_replicas

    @property
    def wire(self) -> WireServer:
        """The Kafka listeners."""
        return self._wire

    # --- life -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Ready soon after this returns: see `awaiting`. Raises what makes a start impossible; stop it then."""
        await self.environment.workers.run(make_durable_directories, self.environment.files, self.node.data)
        self.events.emit("node_starting", roles=list(self.node.roles))
        if self._door is not None:
            await self._door.start()  # first of all, and closed: whoever asks is told what is awaited
        if self.logs is not None:
            await self.logs.start()
        await self._wire.start()
        if self.controller is not None:
            await self.controller.start()
            self._watch = asyncio.get_running_loop().create_task(self._watch_controller(self.controller))
        await self.log.start()
        self.main_loop.start()
        if self.replicas is not None:
            await self.replicas.start()
        if self.lifecycle is not None:
            self.lifecycle.start()
        self.awaiting.has_started = True

    async def stop(self) -> None:
        """In order: hand over the partitions, stop taking requests, flush and mark the logs, leave the quorum."""
        steps: list[Step] = [
            ("controlled shutdown", partial(hand_over, self.lifecycle, self.replicas, events=self.events)),
            ("REST listener", self._door.stop if self._door else None),
            ("Kafka listener", self._stop_listening),
            ("producer ids", self.producer_ids.stop if self.producer_ids else None),
            ("replicas", self._stop_replicas),
            ("logs", self.logs.stop if self.logs else None),
            ("controller", self.controller.stop if self.controller else None),
            ("connections", self._peers.close),
            ("watchdog", self.main_loop.stop),
            ("metadata quorum", self.log.stop),
        ]
        try:
            await stop_in_order(steps, events=self.events)
        finally:
            self.events.emit("node_stopped")
            self.events.close()

    async def _stop_listening(self) -> None:
        self._tails.close()
        await self._wire.stop()

    async def _stop_replicas(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        if self.transaction_coordinator is not None:
            self.transaction_coordinator.stop()
        if self.coordinator is not None:
            self.coordinator.stop()
        if self.replicas is not None:
            await self.replicas.stop()

    def _has_caught_up(self) -> bool:
        if self.lifecycle is not None:
            return self._has_own_registration
        assert isinstance(self.log, RaftMetadataLog), "a node without the broker role is a voter"
        return self.log.has_caught_up

    async def _watch_controller(self, controller: ActiveController) -> None:
        try:
            await controller.wait()
        except Exception as error:  # noqa: BLE001 - a broken invariant of the controller stops the node
            self._on_fatal(error)

    # --- parts ----------------------------------------------------------------------------------------------

    def _make_main_loop_watch(self) -> MainLoopWatch:
        return MainLoopWatch(
            self.environment,
            host=self._quorum,
            is_voter=self.node.is_voter,
            events=self.events,
            end_ms=lambda: self.publisher.settings.node_hang_timeout_ms,
        )

    def _make_log(self) -> MetadataLog:
        if self.node.is_voter:
            return voter_log(
                self.config,
                self.node.id,
                environment=self.environment,
                host=self._quorum,
                events=self.events,
                on_fatal=self._on_fatal,
                is_hanging=self.main_loop.is_hanging,
            )
        return observer_log(
            self.config,
            self.node.id,
            environment=self.environment,
            peers=self._peers,
            events=self.events,
            on_fatal=self._on_fatal,
        )

    def _make_controller(self) -> ActiveController:
        settings = self.publisher.settings
        return ActiveController(
            node_id=self.node.id,
            cluster_id=self.config.cluster_id,
            log=self.log,
            environment=self.environment,
            events=self.events,
            static_settings=self._static,
            query=WireReplicaQuery(self._peers, timeout_ms=settings.unclean_recovery_timeout_ms),
            probe=WireBrokerProbe(self._peers, timeout_ms=settings.broker_probe_timeout_ms),
        )

    def _make_broker(self) -> None:
        self.logs = LogManager(
            self.environment,
            directories=self.node.log_dirs,
            cluster_id=self.config.cluster_id,
            node_id=self.node.id,
            events=self.events,
            settings=self.publisher.current_settings,
        )
        self.replicas = ReplicaManager(
            self.node.id,
            environment=self.environment,
            logs=self.logs,
            channels=lambda leader_id: WireLeaderChannel(self._peers, leader_id),
            alter_partition=AlterPartitionSender(self._control, self.publisher.current_settings),
            events=self.events,
            settings=self.publisher.current_settings,
            topic_settings=self.publisher.topic_settings,
            is_trusted=self._is_trusted,
        )
        lifecycle = self.lifecycle = BrokerLifecycle(
            identity=broker_identity(self.config, self.node, self._incarnation_id),
            clock=self.environment.clock,
            control=self._control,
            image=lambda: self.publisher.image,
            settings=self.publisher.current_settings,
            events=self.events,
            on_fatal=self._on_fatal,
            failed_replicas=self.replicas.failures.report,
            twin=lambda: twin_problem(self.log),
        )
        context = coordinator_context(lifecycle, self.environment, replicas=self.replicas, publisher=self.publisher)
        self.coordinator = GroupCoordinator(context, self.events, verify=self._verify_offsets)
        self.producer_ids = ProducerIds(
            broker_id=self.node.id, control=self._control, broker_epoch=lambda: lifecycle.broker_epoch
        )
        self.markers = TxnMarkers(
            self.replicas, self.coordinator, clock=self.environment.clock, settings=self.publisher.current_settings
        )
        self.transaction_coordinator = TransactionCoordinator(
            context,
            self.events,
            new_producer_id=self.producer_ids.next_id,
            write=self.write_markers,
        )
        self.replicas.failures.listen(self.lifecycle.on_failed_replicas)

    async def _verify_offsets(self, request: CommitInTransaction, partition: TopicPartition) -> None:
        await verify_offsets(self.verifier, request, partition)

    async def _is_trusted(self) -> bool:
        return self.lifecycle is not None and await self.lifecycle.is_in_office()

    def _make_gateway(self) -> Gateway:
        finder = LeaderFinder(
            node_id=self.node.id,
            publisher=self.publisher,
            local=self.local_leader,
            peer=lambda node_id: RemotePartitionClient(self._peers, node_id),
        )
        self._tails = Tails(clock=self.environment.clock, finder=finder)
        self.publisher.subscribe(self._tails.on_metadata)
        return Router(
            node_id=self.node.id,
            cluster_id=self.config.cluster_id,
            nodes=node_infos(self.config),
            described_settings=self.config.described_settings(self.node.id),
            clock=self.environment.clock,
            publisher=self.publisher,
            door=self._control,
            finder=finder,
            tails=self._tails,
        )

    def _make_transactions(self) -> Transactions:
        return Transactions(
            gateway=self.gateway,
            clock=self.environment.clock,
            local=self.transaction_coordinator,
            remote=lambda node_id: TransactionChannel(self._peers, node_id),
            ensure_groups=self.groups.coordinator_of,
        )

    @cached_property
    def verifier(self) -> TransactionVerifier:
        return TransactionVerifier(self.transactions, self.publisher.current_settings)

    async def write_markers(self, node_id: int, markers: Sequence[MarkersToWrite]) -> Sequence[Codes]:
        """At a leader of partitions, which this node may be."""
        if node_id == self.node.id and self.markers is not None:
            return await self.markers.write(markers)
        return await TransactionChannel(self._peers, node_id).write_markers(markers)

    @cached_property
    def local_leader(self) -> LocalPartitionClient | None:
        def transactional() -> TransactionalProduce:
            assert self.transactional_produce is not None, "a node with replicas takes part in transactions"
            return self.transactional_produce

        return None if self.replicas is None else LocalPartitionClient(self.replicas, transactional)

    @cached_property
    def transactional_produce(self) -> TransactionalProduce | None:
        if self.replicas is None:
            return None
        return TransactionalProduce(self.replicas, self.verifier, self.environment.clock)

    # --- metadata -------------------------------------------------------------------------------------------

    def _subscribe(self) -> None:
        self.publisher.attach(self.log)
        self.publisher.subscribe(self._on_metadata)
        if self.lifecycle is not None:
            self.publisher.subscribe_leadership(self.lifecycle.on_leadership)

    def _on_metadata(self, delta: MetadataDelta, image: MetadataImage) -> None:
        """Replicas take on metadata only from the image that holds this process's registration on (B2): leading by an
        earlier life's would be leading in the past."""
        if self.replicas is None or self.lifecycle is None:
            return
        if not self._has_own_registration:
            own = image.brokers.get(self.node.id)
            self._has_own_registration = own is not None and own.incarnation_id == self._incarnation_id
            if not self._has_own_registration:
                return
            self.replicas.apply_metadata(delta)
            self.replicas.remove_strays()
        else:
            self.replicas.apply_metadata(delta)
        if self.coordinator is not None:
            self.coordinator.on_metadata(delta, image)
        if self.transaction_coordinator is not None:
            self.transaction_coordinator.on_metadata(image)
        self.lifecycle.on_image(image)


def wire_server(
    config: ClusterConfig,
    node: NodeConfig,
    *,
    environment: Environment,
    log: MetadataLog,
    controller: ActiveController | None,
    replicas: ReplicaManager | None,
    groups: GroupCoordinator | None,
    leader: LocalPartitionClient | None,
    clients: ClientApis | None,
    answers: AnswerBudget,
    settings: BrokerSettings,
) -> WireServer:
    """What a role would answer is None on a node without it."""
    fetches = MetadataFetches(log, clock=environment.clock, cluster_id=config.cluster_id) if node.is_voter else None
    return WireServer(
        environment,
        host=node.bind_host,
        port=node.kafka_port,
        cluster_id=config.cluster_id,
        password=config.keys.password,
        nodes=NodeApis(replicas, controller, metadata=fetches, groups=groups, leader=leader, clients=clients),
        settings=settings,
        clients=clients,
        answers=answers,
        client_listeners=[ClientListener(each.name, each.host or node.bind_host, each.port) for each in node.listeners],
        on_broker_connection_lost=None if controller is None else controller.broker_connection_lost,
    )


def broker_identity(config: ClusterConfig, node: NodeConfig, incarnation_id: UUID) -> BrokerIdentity:
    return BrokerIdentity(
        cluster_id=config.cluster_id,
        broker_id=node.id,
        incarnation_id=incarnation_id,
        rest=str(node.rest),
        kafka=str(node.kafka),
        rack=node.rack,
        listeners=node.client_addresses,
    )


class AlterPartitionSender:
    """`replication`'s way to change an ISR: one attempt within the replica socket timeout; it retries itself (I8)."""

    def __init__(self, door: ControllerDoor, settings: Callable[[], BrokerSettings]) -> None:
        self._door = door
        self._settings = settings

    async def alter(self, request: AlterPartition) -> Mapping[TopicIdPartition, PartitionImage | ErrorDetail]:
        return await self._door.control(request, timeout_ms=self._settings().replica_socket_timeout_ms)


def coordinator_context(
    lifecycle: BrokerLifecycle, environment: Environment, *, replicas: ReplicaManager, publisher: MetadataPublisher
) -> CoordinatorContext:
    return CoordinatorContext(
        node_id=lifecycle.broker_id,
        environment=environment,
        replicas=replicas,
        settings=publisher.current_settings,
        topic_settings=publisher.topic_settings,
        image=lambda: publisher.image,
        has_session=lambda: lifecycle.has_session,
    )


def groups_of(
    gateway: Gateway, *, environment: Environment, coordinator: GroupCoordinator | None, peers: Peers
) -> Groups:
    clock = environment.clock
    return Groups(gateway=gateway, clock=clock, local=coordinator, remote=lambda node_id: GroupChannel(peers, node_id))


async def stop_in_order(steps: Sequence[Step], *, events: Events) -> None:
    """A step that fails (a disk that is gone) must not keep those after it, and so the process, alive."""
    first: Exception | None = None
    for name, step in steps:
        if step is None:
            continue
        try:
            await step()
        except Exception as error:  # noqa: BLE001 - raised at the end; the steps after it have to be taken
            events.emit("stop_step_failed", step=name, error=f"{type(error).__name__}: {error}")
            first = first or error
    if first is not None:
        raise first


async def hand_over(lifecycle: BrokerLifecycle | None, replicas: ReplicaManager | None, *, events: Events) -> None:
    """B6. Nothing to do for a node that is no broker."""
    if lifecycle is None:
        return
    if replicas is not None and lifecycle.can_hand_over:
        await replicas.produce.hand_over()
    handed_over = await lifecycle.controlled_shutdown()
    events.emit("controlled_shutdown", handed_over=handed_over)
    await lifecycle.stop()
