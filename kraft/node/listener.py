"""The Kafka listeners of a node."""

from __future__ import annotations

from kraft.broker.answer_budget import AnswerBudget
from kraft.node.context import NodeContext
from kraft.node.controller import ControllerParts
from kraft.wire.handler_table import ApiHandlers
from kraft.wire.server import ClientListener, WireServer


def kafka_listener(
    context: NodeContext, *, handlers: ApiHandlers, controller: ControllerParts | None, answers: AnswerBudget
) -> WireServer:
    config, own = context.config, context.node
    return WireServer(
        context.environment,
        host=own.bind_host,
        port=own.kafka_port,
        cluster_id=config.cluster_id,
        password=config.keys.password,
        handlers=handlers,
        serves_clients=own.is_broker,
        settings=context.publisher.settings,
        answers=answers,
        client_listeners=[ClientListener(each.name, each.host or own.bind_host, each.port) for each in own.listeners],
        on_broker_connection_lost=None if controller is None else controller.active.broker_connection_lost,
    )
