"""IncrementalAlterConfigs (44, KIP-339)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from kraft.protocol.errors import InvalidRequest
from kraft.wire import apis
from kraft.wire.generated.incremental_alter_configs_request import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequestData,
)
from kraft.wire.generated.incremental_alter_configs_response import (
    AlterConfigsResourceResponse,
    IncrementalAlterConfigsResponseData,
)
from kraft.wire.messages.common import Rpc, detail_code, detail_message, to_detail
from metadata.controller.requests import AlterConfigs, ConfigAlteration, ConfigResource, ErrorDetail

Operation = Literal["set", "delete", "append", "subtract"]
OPERATIONS: tuple[Operation, ...] = ("set", "delete", "append", "subtract")
"""By Kafka's number."""
RESOURCE_TYPES: dict[Literal["topic", "broker"], int] = {"topic": 2, "broker": 4}


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
                ConfigAlteration(name=config.name, operation=_operation(config.config_operation), value=config.value)
                for config in item.configs
            )
            for item in message.resources
        },
        validate_only=message.validate_only,
    )


def _resource(
    item: AlterConfigsResource | AlterConfigsResourceResponse,
) -> ConfigResource:
    for resource_type, number in RESOURCE_TYPES.items():
        if item.resource_type == number:
            return ConfigResource(resource_type=resource_type, name=item.resource_name)
    raise InvalidRequest(f"config resource type {item.resource_type}; 2 (topic) and 4 (broker) exist")


def _operation(number: int) -> Operation:
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


ALTER_CONFIGS: Rpc[
    AlterConfigs,
    Mapping[ConfigResource, ErrorDetail | None],
    IncrementalAlterConfigsRequestData,
    IncrementalAlterConfigsResponseData,
] = Rpc(
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
