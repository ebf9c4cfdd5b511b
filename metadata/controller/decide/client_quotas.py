"""Quotas of clients are set and removed (AlterClientQuotas; Kafka's `ClientQuotaControlManager`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from ipaddress import ip_address

from kraft.protocol.errors import InvalidRequest, KafkaError
from metadata.controller.decide.decision import ControllerState, Decision
from metadata.controller.requests import AlterClientQuotas, ErrorDetail, QuotaAlteration
from metadata.image import QuotaEntity
from metadata.records import ClientQuotaRecord

USER, CLIENT_ID, IP = "user", "client-id", "ip"
ENTITIES = frozenset({USER, CLIENT_ID, IP})
"""Kafka's `ClientQuotaEntity`."""
PRODUCER_BYTE_RATE, CONSUMER_BYTE_RATE = "producer_byte_rate", "consumer_byte_rate"
REQUEST_PERCENTAGE, CONTROLLER_MUTATION_RATE = "request_percentage", "controller_mutation_rate"
CONNECTION_CREATION_RATE = "connection_creation_rate"
_WHOLE = frozenset({PRODUCER_BYTE_RATE, CONSUMER_BYTE_RATE, CONNECTION_CREATION_RATE})
_OF_USERS = frozenset({PRODUCER_BYTE_RATE, CONSUMER_BYTE_RATE, CONTROLLER_MUTATION_RATE, REQUEST_PERCENTAGE})
_OF_IPS = frozenset({CONNECTION_CREATION_RATE})


def alter_client_quotas(controller: ControllerState, request: AlterClientQuotas) -> Decision:
    """All quotas of one entity or none of them."""
    records: list[ClientQuotaRecord] = []
    reply: list[ErrorDetail | None] = []
    seen: set[QuotaEntity] = set()
    for alteration in request.alterations:
        try:
            if alteration.entity in seen:
                raise InvalidRequest("an entity is there twice: send its changes together")
            seen.add(alteration.entity)
            changed = _changes(alteration, controller.image.quotas.get(alteration.entity, {}))
        except KafkaError as error:
            reply.append(ErrorDetail(type(error), error.message))
        else:
            reply.append(None)
            records += changed
    if request.validate_only:
        records = []
    return Decision(liveness=controller.liveness, records=tuple(records), is_atomic=True, reply=reply)


def _changes(alteration: QuotaAlteration, current: Mapping[str, float]) -> list[ClientQuotaRecord]:
    check_entity(alteration.entity)
    for key, value in alteration.quotas.items():
        _check_quota(alteration.entity, key, value)
    return [
        ClientQuotaRecord(entity=alteration.entity, key=key, value=value)
        for key, value in alteration.quotas.items()
        if value != current.get(key)
    ]


def check_entity(entity: QuotaEntity) -> None:
    """Raises InvalidRequest 42 for a combination of types that holds no quotas."""
    kinds = [kind for kind, _ in entity]
    if not kinds:
        raise InvalidRequest("Invalid empty client quota entity")
    unknown = sorted(set(kinds) - ENTITIES)
    if unknown:
        raise InvalidRequest(f"Unhandled client quota entity type: {unknown[0]}")
    if len(set(kinds)) < len(kinds):
        raise InvalidRequest("Invalid client quota entity: a type is there twice")
    if IP in kinds and len(kinds) > 1:
        raise InvalidRequest("Invalid quota entity combination, IP cannot be combined with user or client-id")
    for kind, name in entity:
        if name == "":
            raise InvalidRequest(f"Empty {kind} not supported")
        if kind == IP and name is not None:
            try:
                ip_address(name)
            except ValueError as error:
                raise InvalidRequest(f"{name} is not a valid IP or resolvable host.") from error


def _check_quota(entity: QuotaEntity, key: str, value: float | None) -> None:
    if key not in (_OF_IPS if entity[0][0] == IP else _OF_USERS):
        raise InvalidRequest(f"Invalid configuration key {key}")
    if value is None:
        return
    if not math.isfinite(value) or value <= 0:
        raise InvalidRequest(f"Quota {key} must be greater than 0")
    if key in _WHOLE and not value.is_integer():
        raise InvalidRequest(f"Configuration {key} must be a whole number")
