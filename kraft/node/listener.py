"""The Kafka listeners of a node."""

from __future__ import annotations

from collections.abc import Sequence

from kraft.broker.answer_budget import AnswerBudget
from kraft.config.models import Mechanism, SecurityProtocol, has_sasl, has_tls
from kraft.node.context import NodeContext
from kraft.node.controller import ControllerParts
from kraft.node.tls_policy import client_port_tls, nodes_need_tls, shared_port_tls
from kraft.wire.client_login import PLAIN, LoginRules
from kraft.wire.handler_table import ApiHandlers
from kraft.wire.listener_security import ListenerSecurity
from kraft.wire.server import ClientListener, WireServer
from metadata.environment import Tls


def kafka_listener(
    context: NodeContext, *, handlers: ApiHandlers, controller: ControllerParts | None, answers: AnswerBudget
) -> WireServer:
    config, own, certificates = context.config, context.node, context.certificates
    outside = [
        (each, _security(context, each.protocol, each.mechanisms, client_port_tls(config, each.protocol, certificates)))
        for each in own.listeners
    ]
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
        client_listeners=[
            ClientListener(each.name, each.host or own.bind_host, each.port, security) for each, security in outside
        ],
        security=_security(context, own.kafka_protocol, (), shared_port_tls(config, own, certificates)),
        on_broker_connection_lost=None if controller is None else controller.active.broker_connection_lost,
        client_events=context.client_events,
    )


def _security(
    context: NodeContext, protocol: SecurityProtocol, mechanisms: Sequence[Mechanism], tls: Tls | None
) -> ListenerSecurity:
    return ListenerSecurity(
        tls=tls,
        nodes_need_tls=nodes_need_tls(context.config),
        clients_need_tls=has_tls(protocol),
        mapping_rules=lambda: context.publisher.settings.ssl_principal_mapping_rules,
        login=_login(context, protocol, mechanisms) if has_sasl(protocol) else None,
    )


def _login(context: NodeContext, protocol: SecurityProtocol, mechanisms: Sequence[Mechanism]) -> LoginRules:
    settings = context.publisher.settings
    enabled = mechanisms or settings.sasl_enabled_mechanisms.split(",")
    may_be_plain = has_tls(protocol) or settings.sasl_plain_without_tls_enable
    return LoginRules(
        logins=context.logins,
        mechanisms=[each for each in enabled if each != PLAIN or may_be_plain],
        clock=context.environment.clock,
        rng=context.environment.rng,
    )
