"""DescribeClientQuotas (48) and AlterClientQuotas (49): of users, client ids, addresses (KIP-546, KIP-612)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kraft.broker.gateway import Gateway
from kraft.protocol.errors import InvalidRequest, KafkaError, UnsupportedVersion
from kraft.protocol.messages import alter_client_quotas_response as altered
from kraft.protocol.messages import describe_client_quotas_response as described
from kraft.protocol.messages.alter_client_quotas_request import AlterClientQuotasRequestData, EntryData
from kraft.protocol.messages.alter_client_quotas_response import AlterClientQuotasResponseData
from kraft.protocol.messages.describe_client_quotas_request import ComponentData, DescribeClientQuotasRequestData
from kraft.protocol.messages.describe_client_quotas_response import DescribeClientQuotasResponseData
from kraft.wire.api_handler import ApiHandler, Call
from kraft.wire.error_details import detail_code, detail_message
from kraft.wire.handlers.control import Control
from kraft.wire.node_parts import NodeParts
from metadata.controller.decide.client_quotas import ENTITIES, IP
from metadata.controller.requests import AlterClientQuotas, ErrorDetail, QuotaAlteration
from metadata.image import QuotaEntity

EXACT, DEFAULT, SPECIFIED = range(3)
"""How a component is matched: a name, the default of the type, or any of the type."""


def apis(parts: NodeParts) -> Sequence[ApiHandler]:
    handlers = _ClientQuotas(parts)
    return (
        ApiHandler(
            request=DescribeClientQuotasRequestData,
            response=DescribeClientQuotasResponseData,
            handle=handlers.describe,
            refuse=lambda message, version, error: DescribeClientQuotasResponseData.make(
                error_code=error.code, error_message=error.message, entries=None
            ),
        ),
        ApiHandler(
            request=AlterClientQuotasRequestData,
            response=AlterClientQuotasResponseData,
            handle=handlers.alter,
            refuse=_refuse,
        ),
    )


class _ClientQuotas:
    def __init__(self, parts: NodeParts) -> None:
        self._gateway: Gateway = parts.gateway
        self._control = Control(parts)

    def describe(self, call: Call[DescribeClientQuotasRequestData]) -> DescribeClientQuotasResponseData:
        components = call.message.components
        _check(components)
        return DescribeClientQuotasResponseData.make(
            error_message=None,
            entries=[
                _entry(entity, quotas)
                for entity, quotas in self._gateway.image.quotas.items()
                if _matches(dict(entity), components, is_strict=call.message.strict)
            ],
        )

    async def alter(self, call: Call[AlterClientQuotasRequestData]) -> AlterClientQuotasResponseData:
        message = call.message
        outcomes: list[ErrorDetail | None] = [None] * len(message.entries)
        asked: dict[int, QuotaAlteration] = {}
        for place, entry in enumerate(message.entries):
            try:
                asked[place] = _alteration(entry)
            except KafkaError as error:
                outcomes[place] = ErrorDetail(type(error), error.message)
        if asked:
            request = AlterClientQuotas(alterations=tuple(asked.values()), validate_only=message.validate_only)
            decided = await self._control.ask(call, request)
            for place, outcome in zip(asked, decided, strict=True):
                outcomes[place] = outcome
        return _answer(message, outcomes)


def _check(components: Sequence[ComponentData]) -> None:
    """Raises InvalidRequest 42, or UnsupportedVersion 35 for a type that has no quotas, as Kafka does."""
    kinds = [component.entity_type for component in components]
    for component in components:
        if not component.entity_type:
            raise InvalidRequest("Invalid empty entity type.")
        if component.entity_type not in ENTITIES:
            raise UnsupportedVersion(
                f"there are no quotas of entity type {component.entity_type!r}; {sorted(ENTITIES)} are known"
            )
        if not EXACT <= component.match_type <= SPECIFIED:
            raise InvalidRequest(f"Unknown match type {component.match_type}")
        if (component.match is None) is (component.match_type == EXACT):
            raise InvalidRequest(f"match type {component.match_type} with match {component.match!r}: exact has a name")
    if len(set(kinds)) < len(kinds):
        raise InvalidRequest("an entity type is there twice in the filter")
    if IP in kinds and len(kinds) > 1:
        raise InvalidRequest(
            "Invalid entity filter component combination, IP filter component should not be used with user or clientId "
            "filter component."
        )


def _matches(entity: Mapping[str, str | None], components: Sequence[ComponentData], *, is_strict: bool) -> bool:
    if is_strict and len(entity) != len(components):
        return False
    return all(
        each.entity_type in entity and (each.match_type == SPECIFIED or entity[each.entity_type] == each.match)
        for each in components
    )


def _entry(entity: QuotaEntity, quotas: Mapping[str, float]) -> described.EntryData:
    return described.EntryData.make(
        entity=[described.EntityData.make(entity_type=kind, entity_name=name) for kind, name in entity],
        values=[described.ValueData.make(key=key, value=value) for key, value in quotas.items()],
    )


def _alteration(entry: EntryData) -> QuotaAlteration:
    """Raises InvalidRequest 42 for what the controller's request has no place for."""
    keys = [op.key for op in entry.ops]
    if len(set(keys)) < len(keys):
        raise InvalidRequest("a quota of one entity is there twice")
    return QuotaAlteration(
        entity=tuple(sorted(((each.entity_type, each.entity_name) for each in entry.entity), key=repr)),
        quotas={op.key: None if op.remove else op.value for op in entry.ops},
    )


def _answer(
    message: AlterClientQuotasRequestData, outcomes: Sequence[ErrorDetail | None]
) -> AlterClientQuotasResponseData:
    return AlterClientQuotasResponseData.make(
        entries=[
            altered.EntryData.make(
                error_code=detail_code(outcome),
                error_message=detail_message(outcome),
                entity=[
                    altered.EntityData.make(entity_type=each.entity_type, entity_name=each.entity_name)
                    for each in entry.entity
                ],
            )
            for entry, outcome in zip(message.entries, outcomes, strict=True)
        ]
    )


def _refuse(message: AlterClientQuotasRequestData, version: int, error: KafkaError) -> AlterClientQuotasResponseData:
    return _answer(message, [ErrorDetail(type(error), error.message)] * len(message.entries))
