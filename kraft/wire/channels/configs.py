"""IncrementalAlterConfigs (44, KIP-339) and AlterConfigs (33), as nodes ask them of the active controller."""

from __future__ import annotations

from collections.abc import Mapping

from kraft.protocol import apis
from kraft.protocol.messages import alter_configs_request as replacing
from kraft.protocol.messages import alter_configs_response, incremental_alter_configs_response
from kraft.protocol.messages import incremental_alter_configs_request as incremental
from kraft.protocol.messages.alter_configs_request import AlterConfigsRequestData
from kraft.protocol.messages.alter_configs_response import AlterConfigsResponseData
from kraft.protocol.messages.incremental_alter_configs_request import IncrementalAlterConfigsRequestData
from kraft.protocol.messages.incremental_alter_configs_response import IncrementalAlterConfigsResponseData
from kraft.wire.error_details import to_detail
from kraft.wire.rpc import Rpc
from kraft.wire.terms import OPERATIONS, RESOURCE_TYPES, resource_of
from metadata.controller.requests import AlterConfigs, ConfigResource, ErrorDetail, ReplaceConfigs

Details = Mapping[ConfigResource, ErrorDetail | None]


def _alter_request(request: AlterConfigs, timeout_ms: int) -> IncrementalAlterConfigsRequestData:
    return IncrementalAlterConfigsRequestData.make(
        resources=tuple(
            incremental.AlterConfigsResource.make(
                resource_type=RESOURCE_TYPES[resource.resource_type],
                resource_name=resource.name,
                configs=tuple(
                    incremental.AlterableConfig.make(
                        name=item.name, config_operation=OPERATIONS.index(item.operation), value=item.value
                    )
                    for item in alterations
                ),
            )
            for resource, alterations in request.resources.items()
        ),
        validate_only=request.validate_only,
    )


def _replace_request(request: ReplaceConfigs, timeout_ms: int) -> AlterConfigsRequestData:
    return AlterConfigsRequestData.make(
        resources=tuple(
            replacing.AlterConfigsResource.make(
                resource_type=RESOURCE_TYPES[resource.resource_type],
                resource_name=resource.name,
                configs=tuple(replacing.AlterableConfig.make(name=name, value=value) for name, value in wanted.items()),
            )
            for resource, wanted in request.resources.items()
        ),
        validate_only=request.validate_only,
    )


def _detail(
    item: incremental_alter_configs_response.AlterConfigsResourceResponse
    | alter_configs_response.AlterConfigsResourceResponse,
) -> tuple[ConfigResource, ErrorDetail | None]:
    return resource_of(item.resource_type, item.resource_name), to_detail(item.error_code, item.error_message)


ALTER_CONFIGS: Rpc[AlterConfigs, Details, IncrementalAlterConfigsRequestData, IncrementalAlterConfigsResponseData] = (
    Rpc(
        api=apis.INCREMENTAL_ALTER_CONFIGS,
        response=IncrementalAlterConfigsResponseData,
        to_request=_alter_request,
        from_reply=lambda request, message: dict(map(_detail, message.responses)),
    )
)
REPLACE_CONFIGS: Rpc[ReplaceConfigs, Details, AlterConfigsRequestData, AlterConfigsResponseData] = Rpc(
    api=apis.ALTER_CONFIGS,
    response=AlterConfigsResponseData,
    to_request=_replace_request,
    from_reply=lambda request, message: dict(map(_detail, message.responses)),
)
