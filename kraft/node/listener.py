"""The Kafka listeners of a node, with the handlers of the roles that it has."""

from __future__ import annotations

from kraft.broker.answer_budget import AnswerBudget
from kraft.node.broker import BrokerParts
from kraft.node.context import NodeContext
from kraft.node.controller import ControllerParts
from kraft.wire.handlers.node_apis import NodeApis
from kraft.wire.handlers.table import ClientApis
from kraft.wire.server import ClientListener, WireServer


def kafka_listener(
    context: NodeContext,
    *,
    broker: BrokerParts | None,
    controller: ControllerParts | None,
    clients: ClientApis | None,
    answers: AnswerBudget,
) -> WireServer:
    """`clients` are the handlers of clients' requests, on a node with the broker role."""
    config, own = context.config, context.node
    return WireServer(
        context.environment,
        host=own.bind_host,
        port=own.kafka_port,
        cluster_id=config.cluster_id,
        password=config.keys.password,
        nodes=NodeApis(
            None if broker is None else broker.replicas,
            None if controller is None else controller.active,
            metadata=None if controller is None else controller.fetches,
            groups=None if broker is None else broker.group_coordinator,
            leader=None if broker is None else broker.client,
            clients=clients,
        ),
        settings=context.publisher.settings,
        clients=clients,
        answers=answers,
        client_listeners=[ClientListener(each.name, each.host or own.bind_host, each.port) for each in own.listeners],
        on_broker_connection_lost=None if controller is None else controller.active.broker_connection_lost,
    )
