"""IncrementalAlterConfigs (44, KIP-339) and AlterConfigs (33)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from kraft.protocol import apis
from kraft.protocol.errors import InvalidRequest
from kraft.protocol.messages import alter_configs_request, alter_configs_response
from kraft.protocol.messages.alter_configs_request import AlterConfigsRequestData
from kraft.protocol.messages.alter_configs_response import AlterConfigsResponseData
from kraft.protocol.messages.incremental_alter_configs_request import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequestData,
)
from kraft.protocol.messages.incremental_alter_configs_response import (
    AlterConfigsResourceResponse,
    IncrementalAlterConfigsResponseData,
)
from kraft.wire.messages.common import ServedRpc, detail_code, detail_message, to_detail
from metadata.controller.requests import AlterConfigs, ConfigAlteration, ConfigResource, ErrorDetail, ReplaceConfigs
from metadata.records import ResourceType

Operation = Literal["set", "delete", "append", "subtract"]
OPERATIONS: tuple[Operation, ...] = ("set", "delete", "append", "subtract")
"""By Kafka's number."""
RESOURCE_TYPES: dict[ResourceType, int] = {"topic": 2, "broker": 4, "client-metrics": 16, "group": 32}


def _configs_request(request: AlterConfigs, timeout_ms: int) -> IncrementalAlterConfigsRequestData:
    return IncrementalAlterConfigsRequestData.make(
        resources=tuple(
            AlterConfigsResource.make(
                resource_type=RESOURCE_TYPES[resource.resource_type],
                resource_name=resource.name,
                configs=tuple(
                    AlterableConfig.make(
                        name=item.name, config_operation=OPERATIONS.index(item.operation), value=item.value
                    )
                    for item in alterations
                ),
            )
            for resource, alterations in request.resources.items()
        ),
        validate_only=request.validate_only,
    )


def _configs(message: IncrementalAlterConfigsRequestData) -> AlterConfigs:
    return AlterConfigs(
        resources={
            _resource(item): tuple(
                ConfigAlteration(name=config.name, operation=operation_of(config.config_operation), value=config.value)
                for config in item.configs
            )
            for item in message.resources
        },
        validate_only=message.validate_only,
    )


def _resource(
    item: AlterConfigsResource
    | AlterConfigsResourceResponse
    | alter_configs_request.AlterConfigsResource
    | alter_configs_response.AlterConfigsResourceResponse,
) -> ConfigResource:
    return resource_of(item.resource_type, item.resource_name)


def resource_of(number: int, name: str) -> ConfigResource:
    """Raises InvalidRequest 42 for a type of resource that has no settings here."""
    for resource_type, known in RESOURCE_TYPES.items():
        if number == known:
            return ConfigResource(resource_type=resource_type, name=name)
    raise InvalidRequest(
        f"resources of type {number} have no settings here; "
        + ", ".join(f"{known} ({name})" for name, known in RESOURCE_TYPES.items())
        + " have"
    )


def operation_of(number: int) -> Operation:
    """The operation of IncrementalAlterConfigs with this number. Raises InvalidRequest 42 for any other number."""
    if not 0 <= number < len(OPERATIONS):
        raise InvalidRequest(f"config operation {number}; 0 to {len(OPERATIONS) - 1} exist")
    return OPERATIONS[number]


def _configs_response(
    items: list[tuple[int, str, int, str | None]],
) -> IncrementalAlterConfigsResponseData:
    return IncrementalAlterConfigsResponseData.make(
        responses=tuple(
            AlterConfigsResourceResponse.make(
                error_code=code, error_message=message, resource_type=number, resource_name=name
            )
            for number, name, code, message in items
        ),
    )


def _configs_reply(
    request: AlterConfigs, reply: Mapping[ConfigResource, ErrorDetail | None]
) -> IncrementalAlterConfigsResponseData:
    return _configs_response(
        [
            (RESOURCE_TYPES[resource.resource_type], resource.name, detail_code(detail), detail_message(detail))
            for resource, detail in reply.items()
        ]
    )


ALTER_CONFIGS: ServedRpc[
    AlterConfigs,
    Mapping[ConfigResource, ErrorDetail | None],
    IncrementalAlterConfigsRequestData,
    IncrementalAlterConfigsResponseData,
] = ServedRpc(
    api=apis.INCREMENTAL_ALTER_CONFIGS,
    response=IncrementalAlterConfigsResponseData,
    to_request=_configs_request,
    from_request=_configs,
    to_reply=_configs_reply,
    from_reply=lambda request, message: {
        _resource(item): to_detail(item.error_code, item.error_message) for item in message.responses
    },
    refuse=lambda message, code: _configs_response(
        [(item.resource_type, item.resource_name, code, None) for item in message.resources]
    ),
)


# --- AlterConfigs, which replaces all settings of a resource -------------------------------------------------------


def _replace_request(request: ReplaceConfigs, timeout_ms: int) -> AlterConfigsRequestData:
    return AlterConfigsRequestData.make(
        resources=tuple(
            alter_configs_request.AlterConfigsResource.make(
                resource_type=RESOURCE_TYPES[resource.resource_type],
                resource_name=resource.name,
                configs=tuple(
                    alter_configs_request.AlterableConfig.make(name=name, value=value) for name, value in wanted.items()
                ),
            )
            for resource, wanted in request.resources.items()
        ),
        validate_only=request.validate_only,
    )


def _replace(message: AlterConfigsRequestData) -> ReplaceConfigs:
    return ReplaceConfigs(
        resources={
            _resource(item): {config.name: config.value or "" for config in item.configs} for item in message.resources
        },
        validate_only=message.validate_only,
    )


def _replace_response(items: list[tuple[int, str, int, str | None]]) -> AlterConfigsResponseData:
    return AlterConfigsResponseData.make(
        responses=tuple(
            alter_configs_response.AlterConfigsResourceResponse.make(
                error_code=code, error_message=message, resource_type=number, resource_name=name
            )
            for number, name, code, message in items
        )
    )


REPLACE_CONFIGS: ServedRpc[
    ReplaceConfigs,
    Mapping[ConfigResource, ErrorDetail | None],
    AlterConfigsRequestData,
    AlterConfigsResponseData,
] = ServedRpc(
    api=apis.ALTER_CONFIGS,
    response=AlterConfigsResponseData,
    to_request=_replace_request,
    from_request=_replace,
    to_reply=lambda request, reply: _replace_response(
        [
            (RESOURCE_TYPES[resource.resource_type], resource.name, detail_code(detail), detail_message(detail))
            for resource, detail in reply.items()
        ]
    ),
    from_reply=lambda request, message: {
        _resource(item): to_detail(item.error_code, item.error_message) for item in message.responses
    },
    refuse=lambda message, code: _replace_response(
        [(item.resource_type, item.resource_name, code, None) for item in message.resources]
    ),
)
