"""`Node`: the composition root. Builds the parts of one node, starts them in order and stops them in reverse.

Nothing is decided here. The world outside comes in as arguments, so a simulation builds the same node with virtual
time, an in-memory disk and network, no thread for the quorum and no HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property
from typing import Any, Protocol, TypeAlias

from kraft.broker.answer_budget import AnswerBudget
from kraft.broker.audit import Audit
from kraft.broker.control import ControllerDoor, Submit, submit_counted
from kraft.broker.gateway import Gateway
from kraft.broker.leaders import LeaderFinder, PartitionClient
from kraft.broker.lost_brokers import LostBrokers
from kraft.broker.node_facts import FactsOfNode
from kraft.broker.routing import Router
from kraft.broker.tail_waits import Tails
from kraft.broker.transaction_verification import TransactionVerifier
from kraft.config.models import ClusterConfig
from kraft.coordinators.groups.routing import Groups
from kraft.coordinators.shares.ack_ids import AckIds
from kraft.coordinators.shares.queue import Queues
from kraft.coordinators.shares.routing import SharePersister
from kraft.coordinators.transactions.routing import Transactions
from kraft.node.addresses import node_infos
from kraft.node.broker import broker_parts, hand_over, marker_router, stop_replicas
from kraft.node.context import NodeContext, OnFatal, node_context
from kraft.node.controller import ControllerParts, controller_parts
from kraft.node.listener import kafka_listener
from kraft.node.quorum import HostedQuorum, observer_log
from kraft.node.startup_state import Awaiting
from kraft.node.tls_policy import Certificates
from kraft.wire.channels.controller import ControllerChannel
from kraft.wire.channels.forward import RemotePartitionClient
from kraft.wire.channels.groups import GroupChannel
from kraft.wire.channels.share_records import ShareRecordsChannel
from kraft.wire.channels.share_state import ShareStateChannel
from kraft.wire.channels.transactions import TransactionChannel
from kraft.wire.handler_table import ApiHandlers
from kraft.wire.node_parts import BrokerParts, NodeParts
from metadata.controller.active import ActiveController
from metadata.controller.requests import Request
from metadata.durable_directories import make_durable_directories
from metadata.environment import Environment
from metadata.events import Events
from metadata.image import TopicIdPartition
from metadata.quorum.log import MetadataLog

Step: TypeAlias = tuple[str, Callable[[], Awaitable[object]] | None]
"""Its name, and what it does; None for a part that this node does not have."""


class Door(Protocol):
    """A listener for clients, beside the Kafka one: HTTP. Its port is open while it is started."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


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
        certificates: Certificates | None = None,
    ) -> None:
        """`door` makes the HTTP listener, if any. `on_fatal` must stop the node. `certificates`: a listener has TLS."""
        context = node_context(
            config, node_id, environment=environment, quorum=quorum, on_fatal=on_fatal, certificates=certificates
        )
        self._context, self.certificates, self.logins = context, certificates, context.logins
        self.config, self.node, self.environment, self.peers = config, context.node, environment, context.peers
        self.incarnation_id = context.incarnation_id
        self.events, self.publisher, self.main_loop = context.events, context.publisher, context.main_loop
        self.controller: ControllerParts | None = controller_parts(context) if context.node.is_voter else None
        self.log: MetadataLog = _observer(context) if self.controller is None else self.controller.log
        control = _controller_door(context, self.controller)
        verifier = TransactionVerifier(lambda: self.transactions, context.publisher.current_settings)
        local = broker_parts(context, self.log, control, verifier, self) if context.node.is_broker else None
        self.broker: BrokerParts | None = local
        self._tails, self.gateway = _routing(context, control=control, local=None if local is None else local.client)
        self.groups = Groups(
            gateway=self.gateway,
            clock=environment.clock,
            local=None if local is None else local.group_coordinator,
            remote=lambda number: GroupChannel(context.peers, number),
        )
        self.transactions: Transactions = Transactions(
            gateway=self.gateway,
            clock=environment.clock,
            local=None if local is None else local.transaction_coordinator,
            remote=lambda number: TransactionChannel(context.peers, number),
            ensure_groups=self.groups.coordinator_of,
        )
        self.share_persister = _share_persister(context, self.gateway, local)
        self.queues = _queues(context, self.gateway, self.groups, self.transactions, local)
        self.markers = marker_router(context, None if local is None else local.markers)
        self.awaiting = _awaiting(context, self.log, self.controller, self.broker)
        self.lost_brokers = LostBrokers(context.peers, publisher=context.publisher, clock=environment.clock)
        self.answers = AnswerBudget(context.publisher.settings.queued_max_response_bytes)
        handlers = ApiHandlers(node_parts(self), awaited=self.awaiting.metadata)
        self.wire = kafka_listener(context, handlers=handlers, controller=self.controller, answers=self.answers)
        self._door = None if door is None else door(self)
        self._watch: asyncio.Task[None] | None = None
        self._subscribe()

    @cached_property
    def facts(self) -> FactsOfNode:
        """What this node knows, for those who watch the cluster."""
        return _facts(self)

    # --- life -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Ready soon after this returns: see `awaiting`. Raises what makes a start impossible; stop it then."""
        await self.environment.workers.run(make_durable_directories, self.environment.files, self.node.data)
        self.events.emit("node_starting", roles=list(self.node.roles))
        if self._door is not None:
            await self._door.start()  # first of all, and closed: a client is answered with what is awaited
        if self.broker is not None:
            await self.broker.logs.start()
        await self.wire.start()
        if self.controller is not None:
            await self.controller.active.start()
            self._watch = asyncio.get_running_loop().create_task(self._watch_controller(self.controller.active))
        await self.log.start()
        self.main_loop.start()
        if self.broker is not None:
            await self.broker.replicas.start()
            self.broker.lifecycle.start()
        self.awaiting.has_started = True

    async def stop(self) -> None:
        """In order: hand over the partitions, stop taking requests, flush and mark the logs, leave the quorum."""
        broker, controller = self.broker, self.controller
        steps: list[Step] = [
            ("controlled shutdown", self._hand_over),
            ("REST listener", self._door.stop if self._door else None),
            ("Kafka listener", self._stop_listening),
            ("producer ids", broker.producer_ids.stop if broker else None),
            ("replicas", self._stop_replicas),
            ("logs", broker.logs.stop if broker else None),
            ("controller", controller.active.stop if controller else None),
            ("connections", self._context.peers.close),
            ("watchdog", self.main_loop.stop),
            ("metadata quorum", self.log.stop),
        ]
        try:
            await stop_in_order(steps, events=self.events)
        finally:
            self.events.emit("node_stopped")
            self.events.close()
            self._context.audit.close()

    async def _hand_over(self) -> None:
        if self.broker is not None:
            has_handed_over = await hand_over(self.broker)
            self.events.emit("controlled_shutdown", handed_over=has_handed_over)

    async def _stop_listening(self) -> None:
        self._tails.close()
        await self.wire.stop()

    async def _stop_replicas(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        if self.broker is not None:
            await stop_replicas(self.broker)

    async def _watch_controller(self, controller: ActiveController) -> None:
        try:
            await controller.wait()
        except Exception as error:  # noqa: BLE001 - a broken invariant of the controller stops the node
            self._context.on_fatal(error)

    def _subscribe(self) -> None:
        self.publisher.attach(self.log)
        if self.broker is not None:
            self.publisher.subscribe(self.broker.metadata.on_metadata)
            self.publisher.subscribe_leadership(self.broker.lifecycle.on_leadership)


def _observer(context: NodeContext) -> MetadataLog:
    return observer_log(
        context.config,
        context.node.id,
        environment=context.environment,
        peers=context.peers,
        events=context.events,
        on_fatal=context.on_fatal,
    )


def _controller_door(context: NodeContext, controller: ControllerParts | None) -> ControllerDoor:
    publisher, clock = context.publisher, context.environment.clock

    def counted(request: Request[Any], submit: Submit) -> Awaitable[Any]:
        return submit_counted(request, submit, quotas=publisher.quotas, image=publisher.image, clock=clock)

    return ControllerDoor(
        clock=clock,
        leadership=lambda: publisher.leadership,
        counted=counted,
        local=None if controller is None else controller.active,
        remote=ControllerChannel(context.peers),
    )


def _routing(context: NodeContext, *, control: ControllerDoor, local: PartitionClient | None) -> tuple[Tails, Gateway]:
    publisher, clock, node = context.publisher, context.environment.clock, context.node
    finder = LeaderFinder(
        node_id=node.id,
        publisher=publisher,
        local=local,
        peer=lambda node_id: RemotePartitionClient(context.peers, node_id),
    )
    tails = Tails(clock=clock, finder=finder)
    publisher.subscribe(tails.on_metadata)
    router = Router(
        node_id=node.id,
        cluster_id=context.config.cluster_id,
        nodes=node_infos(context.config),
        described_settings=context.config.described_settings(node.id),
        clock=clock,
        publisher=publisher,
        door=control,
        finder=finder,
        tails=tails,
        audit=Audit(context.audit, clock),
    )
    return tails, router


def _awaiting(
    context: NodeContext, log: MetadataLog, controller: ControllerParts | None, broker: BrokerParts | None
) -> Awaiting:
    """A broker has caught up with its own registration; a controller that is no broker registers nowhere."""
    role = broker.metadata if broker is not None else controller
    assert role is not None, "a node has a role"
    return Awaiting(
        voters=[voter.id for voter in context.config.voters],
        log=log,
        publisher=context.publisher,
        loading=None if broker is None else broker.logs.loading,
        lifecycle=None if broker is None else broker.lifecycle,
        has_caught_up=role.has_caught_up,
    )


def _share_persister(context: NodeContext, gateway: Gateway, local: BrokerParts | None) -> SharePersister:
    return SharePersister(
        gateway=gateway,
        clock=context.environment.clock,
        local=None if local is None else local.shares.coordinator,
        remote=lambda number: ShareStateChannel(context.peers, number),
    )


def _queues(
    context: NodeContext, gateway: Gateway, groups: Groups, transactions: Transactions, local: BrokerParts | None
) -> Queues:
    environment = context.environment
    return Queues(
        gateway=gateway,
        groups=groups,
        transactions=transactions,
        clock=environment.clock,
        rng=environment.rng,
        ack_ids=AckIds(context.config.keys.acknowledgements),
        local=None if local is None else local.shares.leaders,
        remote=lambda number: ShareRecordsChannel(context.peers, number),
    )


def _facts(node: Node) -> FactsOfNode:
    broker, peers, log = node.broker, node.peers, node.log

    def epochs(key: TopicIdPartition) -> Sequence[tuple[int, int]]:
        found = None if broker is None else broker.logs.get(key)
        return () if found is None else found.epoch_entries

    def links() -> dict[int, dict[str, bool]]:
        found = peers.open_now()
        if node.controller is not None:
            for voter in node.config.voters:
                if voter.id != node.node.id:
                    found.setdefault(voter.id, {})["quorum"] = voter.id in log.met
        return found

    return FactsOfNode(
        gateway=node.gateway,
        clock=node.environment.clock,
        replicas=None if broker is None else broker.replicas,
        epochs=epochs,
        links=links,
        awaits=node.awaiting.service,
    )


def node_parts(node: Node) -> NodeParts:
    """The parts of a node that answer clients and other nodes."""
    controller = node.controller
    return NodeParts(
        environment=node.environment,
        config=node.config,
        gateway=node.gateway,
        groups=node.groups,
        lost=node.lost_brokers,
        transactions=node.transactions,
        share_persister=node.share_persister,
        answers=node.answers,
        facts=node.facts,
        broker=node.broker,
        controller=None if controller is None else controller.active,
        metadata_fetches=None if controller is None else controller.fetches,
    )


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
