"""DescribeConfigs (32), AlterConfigs (33), IncrementalAlterConfigs (44, KIP-339) and ListConfigResources (74).

Topics, groups, subscriptions to client metrics, brokers, the default of all brokers (a broker without a name) and the
loggers of this broker have settings here. Any node describes a topic, a group or a subscription; a broker and its
loggers are described by that broker only, for its static settings are in its own file. Changes are the active
controller's, but for loggers. Source: Kafka's ConfigHelper and ConfigAdminManager.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from kraft.broker.configs import (
    ConfigEntry,
    Kind,
    broker_configs,
    client_metrics_configs,
    cluster_configs,
    group_configs,
    topic_configs,
)
from kraft.broker.gateway import Gateway
from kraft.broker.loggers import check_level, logger_levels, set_level
from kraft.protocol.errors import InvalidRequest, KafkaError, UnknownTopicOrPartition, UnsupportedVersion
from kraft.protocol.messages import alter_configs_request as replacing
from kraft.protocol.messages import incremental_alter_configs_request as incremental
from kraft.protocol.messages import list_config_resources_response as listed
from kraft.protocol.messages.alter_configs_request import AlterConfigsRequestData
from kraft.protocol.messages.alter_configs_response import AlterConfigsResourceResponse as ReplacedResource
from kraft.protocol.messages.alter_configs_response import AlterConfigsResponseData
from kraft.protocol.messages.describe_configs_request import DescribeConfigsRequestData, DescribeConfigsResource
from kraft.protocol.messages.describe_configs_response import (
    DescribeConfigsResourceResult,
    DescribeConfigsResponseData,
    DescribeConfigsResult,
    DescribeConfigsSynonym,
)
from kraft.protocol.messages.incremental_alter_configs_request import IncrementalAlterConfigsRequestData
from kraft.protocol.messages.incremental_alter_configs_response import (
    AlterConfigsResourceResponse,
    IncrementalAlterConfigsResponseData,
)
from kraft.protocol.messages.list_config_resources_request import ListConfigResourcesRequestData
from kraft.protocol.messages.list_config_resources_response import ListConfigResourcesResponseData
from kraft.wire.api_handler import ApiHandler, Call
from kraft.wire.error_details import detail_code, detail_message
from kraft.wire.handlers.client_metrics import client_patterns
from kraft.wire.handlers.config_sources import DYNAMIC_LOGGER, SOURCES
from kraft.wire.handlers.control import Control
from kraft.wire.node_parts import NodeParts
from kraft.wire.terms import OPERATIONS, Operation, resource_of
from metadata.controller.decide.configs import check_named_once
from metadata.controller.decide.topics import check_topic_name
from metadata.controller.requests import (
    AlterConfigs,
    ConfigAlteration,
    ConfigResource,
    ErrorDetail,
    ReplaceConfigs,
)

TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP = 2, 4, 8, 16, 32
"""Types of resources. Source: ConfigResource.Type."""
LISTED = (TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP)
KINDS: Mapping[Kind, int] = {"boolean": 1, "string": 2, "int": 3, "long": 5, "double": 6, "list": 7}
"""Source: DescribeConfigsResponse.ConfigType."""

Place: TypeAlias = tuple[int, str]
"""Type and name of a resource, as a request has them."""


def apis(parts: NodeParts) -> Sequence[ApiHandler]:
    handlers = _Configs(parts)
    return (
        ApiHandler(
            request=DescribeConfigsRequestData,
            response=DescribeConfigsResponseData,
            handle=handlers.describe,
            refuse=_refuse_description,
        ),
        ApiHandler(
            request=IncrementalAlterConfigsRequestData,
            response=IncrementalAlterConfigsResponseData,
            handle=handlers.alter,
            refuse=lambda message, version, error: _altered(_all_refused(message.resources, error)),
        ),
        ApiHandler(
            request=AlterConfigsRequestData,
            response=AlterConfigsResponseData,
            handle=handlers.replace,
            refuse=lambda message, version, error: _replaced(_all_refused(message.resources, error)),
        ),
        ApiHandler(
            request=ListConfigResourcesRequestData,
            response=ListConfigResourcesResponseData,
            handle=handlers.list_resources,
            refuse=lambda message, version, error: ListConfigResourcesResponseData.make(error_code=error.code),
        ),
    )


class _Configs:
    def __init__(self, parts: NodeParts) -> None:
        self._gateway: Gateway = parts.gateway
        self._control = Control(parts)

    # --- DescribeConfigs --------------------------------------------------------------------------------------

    def describe(self, call: Call[DescribeConfigsRequestData]) -> DescribeConfigsResponseData:
        """A resource that is named more than once is described once: the answer to a small request stays small."""
        message = call.message
        asked = dict(zip(_places(message.resources), message.resources, strict=True))
        return DescribeConfigsResponseData.make(
            results=[
                self._described(
                    resource, synonyms=message.include_synonyms, documentation=message.include_documentation
                )
                for resource in asked.values()
            ]
        )

    def _described(
        self, resource: DescribeConfigsResource, *, synonyms: bool, documentation: bool
    ) -> DescribeConfigsResult:
        wanted = set(resource.configuration_keys or ())
        try:
            configs = self._configs(resource, synonyms=synonyms, documentation=documentation)
        except KafkaError as error:
            return _undescribed(resource, error)
        return DescribeConfigsResult.make(
            error_message=None,
            resource_type=resource.resource_type,
            resource_name=resource.resource_name,
            configs=[config for config in configs if not wanted or config.name in wanted],
        )

    def _configs(
        self, resource: DescribeConfigsResource, *, synonyms: bool, documentation: bool
    ) -> list[DescribeConfigsResourceResult]:
        name = resource.resource_name
        if resource.resource_type == BROKER_LOGGER:
            self._check_is_here(name, "the loggers of a broker")
            return [_logger(logger, level) for logger, level in logger_levels().items()]
        entries = self._entries(resource.resource_type, name)
        return [_config(entry, synonyms=synonyms, documentation=documentation) for entry in entries]

    def _entries(self, resource_type: int, name: str) -> Iterator[ConfigEntry]:
        if resource_type == TOPIC:
            check_topic_name(name)
            if name not in self._gateway.image.topic_ids:
                raise UnknownTopicOrPartition(f"there is no topic {name!r}")
            return topic_configs(self._gateway, name)
        if resource_type == GROUP:
            if not name:
                raise InvalidRequest("a group has a name")
            return group_configs(self._gateway, name)
        if resource_type == CLIENT_METRICS:
            if not name:
                raise InvalidRequest("a subscription to client metrics has a name")
            return client_metrics_configs(self._gateway, name)
        if resource_type == BROKER and not name:
            return cluster_configs(self._gateway)
        if resource_type == BROKER:
            self._check_is_here(name, "a broker's settings")
            return broker_configs(self._gateway, self._gateway.node_id)
        raise _without_settings(resource_type)

    def _check_is_here(self, name: str, what: str) -> None:
        """Raises InvalidRequest 42."""
        if name != str(self._gateway.node_id):  # "01" would be another name of it, and each is described
            raise InvalidRequest(f"{what} are asked of that broker: this is {self._gateway.node_id}, not {name!r}")

    # --- IncrementalAlterConfigs ------------------------------------------------------------------------------

    async def alter(self, call: Call[IncrementalAlterConfigsRequestData]) -> IncrementalAlterConfigsResponseData:
        message = call.message
        outcomes: dict[Place, ErrorDetail | None] = {}
        asked: dict[Place, tuple[ConfigResource, tuple[ConfigAlteration, ...]]] = {}
        times = Counter(_places(message.resources))
        for place, resource in zip(_places(message.resources), message.resources, strict=True):
            try:
                _check(resource, times=times[place])
                alterations = _alterations(resource)
                if place[0] == BROKER_LOGGER:
                    self._alter_loggers(place[1], alterations, validate_only=message.validate_only)
                    outcomes[place] = None
                else:
                    asked[place] = resource_of(*place), alterations
            except KafkaError as error:
                outcomes[place] = ErrorDetail(type(error), error.message)
        if asked:
            request = AlterConfigs(resources=dict(asked.values()), validate_only=message.validate_only)
            decided = await self._control.ask(call, request)
            outcomes |= {place: decided[resource] for place, (resource, _) in asked.items()}
        return _altered([(place, outcomes[place]) for place in _places(message.resources)])

    def _alter_loggers(self, name: str, alterations: Sequence[ConfigAlteration], *, validate_only: bool) -> None:
        self._check_is_here(name, "the loggers of a broker")
        check_named_once(change.name for change in alterations)  # the controller does not see them
        for change in alterations:
            if change.operation not in ("set", "delete"):
                raise InvalidRequest(f"the level of a logger can be set or deleted, not {change.operation}ed")
            check_level(change.name, change.value if change.operation == "set" else None)
        for change in () if validate_only else alterations:
            set_level(change.name, change.value if change.operation == "set" else None)

    # --- AlterConfigs -----------------------------------------------------------------------------------------

    async def replace(self, call: Call[AlterConfigsRequestData]) -> AlterConfigsResponseData:
        message = call.message
        outcomes: dict[Place, ErrorDetail | None] = {}
        asked: dict[Place, tuple[ConfigResource, Mapping[str, str]]] = {}
        times = Counter(_places(message.resources))
        for place, resource in zip(_places(message.resources), message.resources, strict=True):
            try:
                _check(resource, times=times[place])
                asked[place] = resource_of(*place), _wanted(resource)
            except KafkaError as error:
                outcomes[place] = ErrorDetail(type(error), error.message)
        if asked:
            request = ReplaceConfigs(resources=dict(asked.values()), validate_only=message.validate_only)
            decided = await self._control.ask(call, request)
            outcomes |= {place: decided[resource] for place, (resource, _) in asked.items()}
        return _replaced([(place, outcomes[place]) for place in _places(message.resources)])

    # --- ListConfigResources ----------------------------------------------------------------------------------

    def list_resources(self, call: Call[ListConfigResourcesRequestData]) -> ListConfigResourcesResponseData:
        """Version 0 asks for the subscriptions to client metrics (KIP-714)."""
        wanted = (CLIENT_METRICS,) if call.version == 0 else tuple(call.message.resource_types) or LISTED
        unknown = [number for number in wanted if number not in LISTED]
        if unknown:
            raise UnsupportedVersion(f"resources of types {unknown} cannot be listed; {list(LISTED)} can")
        image = self._gateway.image
        brokers = sorted(str(number) for number, broker in image.brokers.items() if not broker.fenced)
        groups, subscriptions = (
            sorted(name for each, name in image.configs if each == kind) for kind in ("group", "client-metrics")
        )
        names: dict[int, Iterable[str]] = {
            TOPIC: image.topics_by_name,
            BROKER: brokers,
            BROKER_LOGGER: brokers,
            CLIENT_METRICS: subscriptions,
            GROUP: groups,
        }
        return ListConfigResourcesResponseData.make(
            config_resources=[
                listed.ConfigResource.make(resource_name=name, resource_type=number)
                for number in dict.fromkeys(wanted)
                for name in names.get(number, ())
            ]
        )


# --- described ------------------------------------------------------------------------------------------------------


def _config(entry: ConfigEntry, *, synonyms: bool, documentation: bool) -> DescribeConfigsResourceResult:
    return DescribeConfigsResourceResult.make(
        name=entry.name,
        value=entry.shown(entry.value),
        is_sensitive=entry.is_sensitive,
        read_only=entry.is_read_only,
        config_source=SOURCES[entry.source],
        synonyms=[
            DescribeConfigsSynonym.make(name=each.name, value=entry.shown(each.value), source=SOURCES[each.source])
            for each in (entry.synonyms if synonyms else ())
        ],
        config_type=KINDS[entry.kind],
        documentation=entry.documentation if documentation else None,
    )


def _logger(name: str, level: str) -> DescribeConfigsResourceResult:
    return DescribeConfigsResourceResult.make(name=name, value=level, config_source=DYNAMIC_LOGGER, documentation=None)


def _undescribed(resource: DescribeConfigsResource, error: KafkaError) -> DescribeConfigsResult:
    return DescribeConfigsResult.make(
        error_code=error.code,
        error_message=error.message,
        resource_type=resource.resource_type,
        resource_name=resource.resource_name,
    )


def _refuse_description(
    message: DescribeConfigsRequestData, version: int, error: KafkaError
) -> DescribeConfigsResponseData:
    return DescribeConfigsResponseData.make(results=[_undescribed(resource, error) for resource in message.resources])


def _without_settings(resource_type: int) -> KafkaError:
    return InvalidRequest(
        f"resources of type {resource_type} have no settings here; {TOPIC} (topic), {BROKER} (broker), "
        f"{BROKER_LOGGER} (loggers of a broker), {CLIENT_METRICS} (client metrics) and {GROUP} (group) have"
    )


# --- altered --------------------------------------------------------------------------------------------------------

Resource: TypeAlias = "incremental.AlterConfigsResource | replacing.AlterConfigsResource"
Named: TypeAlias = "Resource | DescribeConfigsResource"


def _places(resources: Iterable[Named]) -> list[Place]:
    return [(resource.resource_type, resource.resource_name) for resource in resources]


def _check(resource: Resource, *, times: int) -> None:
    """Raises InvalidRequest 42."""
    if times > 1:
        raise InvalidRequest(f"resource {resource.resource_name!r} is there {times} times; send its changes together")


def _alterations(resource: incremental.AlterConfigsResource) -> tuple[ConfigAlteration, ...]:
    """Raises InvalidRequest 42 for an unknown operation, and for a value that is null without a deletion."""
    alterations = tuple(
        ConfigAlteration(name=config.name, operation=_operation(config.config_operation), value=config.value)
        for config in resource.configs
    )
    _check_values(change.name for change in alterations if change.operation != "delete" and change.value is None)
    _check_patterns(resource.resource_type, {each.name: each.value for each in alterations})
    return alterations


def _operation(number: int) -> Operation:
    """Raises InvalidRequest 42 for a number that Kafka has no operation for."""
    if not 0 <= number < len(OPERATIONS):
        raise InvalidRequest(f"config operation {number}; 0 to {len(OPERATIONS) - 1} exist")
    return OPERATIONS[number]


def _wanted(resource: replacing.AlterConfigsResource) -> Mapping[str, str]:
    check_named_once(config.name for config in resource.configs)  # a mapping would hide it from the controller
    _check_values(config.name for config in resource.configs if config.value is None)
    wanted = {config.name: config.value for config in resource.configs if config.value is not None}
    _check_patterns(resource.resource_type, wanted)
    return wanted


def _check_patterns(resource_type: int, wanted: Mapping[str, str | None]) -> None:
    """Raises InvalidConfig 40 for clients that a subscription to their metrics cannot match."""
    if resource_type == CLIENT_METRICS:
        client_patterns(wanted.get("match") or "")


def _check_values(nulls: Iterable[str]) -> None:
    names = sorted(nulls)
    if names:
        raise InvalidRequest(f"null is no value of {', '.join(names)}")


Outcomes: TypeAlias = "Sequence[tuple[Place, ErrorDetail | None]]"


def _all_refused(resources: Sequence[Resource], error: KafkaError) -> Outcomes:
    return [(place, ErrorDetail(type(error), error.message)) for place in _places(resources)]


def _altered(outcomes: Outcomes) -> IncrementalAlterConfigsResponseData:
    return IncrementalAlterConfigsResponseData.make(
        responses=[
            AlterConfigsResourceResponse.make(
                error_code=detail_code(detail),
                error_message=detail_message(detail),
                resource_type=number,
                resource_name=name,
            )
            for (number, name), detail in outcomes
        ]
    )


def _replaced(outcomes: Outcomes) -> AlterConfigsResponseData:
    return AlterConfigsResponseData.make(
        responses=[
            ReplacedResource.make(
                error_code=detail_code(detail),
                error_message=detail_message(detail),
                resource_type=number,
                resource_name=name,
            )
            for (number, name), detail in outcomes
        ]
    )
