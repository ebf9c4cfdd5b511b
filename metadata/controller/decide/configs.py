"""Dynamic settings of topics, brokers, groups and client metrics (IncrementalAlterConfigs, KIP-339).

All are checked against the settings models. A broker's setting can be altered if Kafka alters it while a broker runs
(KIP-226), or if it is a dynamic one of ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from kraft.protocol.errors import (
    BrokerIdNotRegistered,
    InvalidConfig,
    InvalidRequest,
    KafkaError,
    UnknownTopicOrPartition,
)
from metadata import kafka_settings
from metadata.controller.decide.decision import ControllerState, Decision
from metadata.controller.decide.events import UncleanSweepTick
from metadata.controller.requests import AlterConfigs, ConfigAlteration, ConfigResource, ErrorDetail, ReplaceConfigs
from metadata.records import ConfigRecord
from metadata.settings import (
    MODELS_BY_RESOURCE,
    BrokerSettings,
    ClientMetricsSettings,
    SettingsModel,
    TopicSettings,
    canonical_value,
    check_group_settings,
    is_dynamic,
    is_list,
    settings_by_name,
)

_UNCLEAN = "unclean.leader.election.enable"
_TARGET = "delivery.target.topic"


def checked_topic_configs(configs: Mapping[str, str]) -> dict[str, str]:
    """The configs of a new topic in their canonical spelling. Raises InvalidConfig 40."""
    return {name: canonical_value(TopicSettings, name, configs[name]) for name in sorted(configs)}


def check_delivery_target(controller: ControllerState, name: str, configs: Mapping[str, str]) -> None:
    """A delay topic forwards its records to a topic that is none; that may be created later. Raises InvalidConfig
    40."""
    target = configs.get(_TARGET, "")
    if not target:
        return
    if target.startswith("__"):
        raise InvalidConfig(f"{_TARGET}={target}: an internal topic takes no records of others; name another topic")
    if target == name:
        raise InvalidConfig(f"{_TARGET}={target}: a topic cannot forward records to itself; name another topic")
    if controller.image.config("topic", target).get(_TARGET):
        raise InvalidConfig(
            f"{_TARGET}={target}: that is a delay topic itself, and records could go in circles; name another topic"
        )
    for (kind, other), named in controller.image.configs.items():
        if kind == "topic" and named.get(_TARGET) == name:
            raise InvalidConfig(
                f"{_TARGET}={target}: the delay topic {other} forwards records to {name}, and they could go in circles"
            )


def alter_configs(controller: ControllerState, request: AlterConfigs) -> Decision:
    """All alterations of one resource or none; switching unclean elections on acts on offline partitions at once."""
    records: list[ConfigRecord] = []
    reply: dict[ConfigResource, ErrorDetail | None] = {}
    for resource, alterations in request.resources.items():
        try:
            records.extend(_alter(controller, resource, alterations))
        except KafkaError as error:
            reply[resource] = ErrorDetail(type(error), error.message)
        else:
            reply[resource] = None
    if request.validate_only:
        records = []
    follow_up = UncleanSweepTick() if any(record.name == _UNCLEAN for record in records) else None
    return Decision(
        liveness=controller.liveness, records=tuple(records), is_atomic=True, reply=reply, follow_up=follow_up
    )


def replace_configs(controller: ControllerState, request: ReplaceConfigs) -> Decision:
    """Kafka's AlterConfigs: decided on this image, so that it drops also the settings that another change has just
    set."""
    alterations = {
        resource: _replacement(controller.image.config(resource.resource_type, resource.name), wanted)
        for resource, wanted in request.resources.items()
    }
    return alter_configs(controller, AlterConfigs(resources=alterations, validate_only=request.validate_only))


def _replacement(current: Mapping[str, str], wanted: Mapping[str, str]) -> tuple[ConfigAlteration, ...]:
    dropped = [name for name in current if name not in wanted]
    return (
        *(ConfigAlteration(name=name, operation="set", value=value) for name, value in wanted.items()),
        *(ConfigAlteration(name=name, operation="delete") for name in dropped),
    )


def check_named_once(names: Iterable[str]) -> None:
    """Raises InvalidRequest 42 for settings that one request alters twice."""
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise InvalidRequest(f"settings {repeated} are altered twice in one request")


def _alter(
    controller: ControllerState, resource: ConfigResource, alterations: tuple[ConfigAlteration, ...]
) -> list[ConfigRecord]:
    _check_resource(controller, resource)
    check_named_once(change.name for change in alterations)
    _check_names(resource, [change.name for change in alterations if change.operation != "delete"])
    current = controller.image.config(resource.resource_type, resource.name)
    altered = dict(current)
    records = []
    for change in alterations:
        value = _new_value(resource, change, current.get(change.name))
        altered.pop(change.name, None)
        if value is not None:
            altered[change.name] = value
        if value != current.get(change.name):
            records.append(
                ConfigRecord(
                    resource_type=resource.resource_type, resource_name=resource.name, name=change.name, value=value
                )
            )
    if resource.resource_type == "group":
        check_group_settings(controller.settings, altered)
    elif resource.resource_type == "topic" and altered.get(_TARGET) != current.get(_TARGET):
        check_delivery_target(controller, resource.name, altered)
    return records


def _check_resource(controller: ControllerState, resource: ConfigResource) -> None:
    if resource.resource_type == "topic":
        if resource.name not in controller.image.topic_ids:
            raise UnknownTopicOrPartition(f"there is no topic {resource.name!r}")
    elif resource.resource_type == "group":
        if not resource.name:
            raise InvalidRequest("a group has a name: there are no settings for all groups but the brokers'")
    elif resource.resource_type == "client-metrics":
        if not resource.name:
            raise InvalidRequest("a subscription to client metrics has a name")
    elif resource.name:
        if not resource.name.isdecimal():
            raise InvalidRequest(f"a broker is named by its id, or '' for all of them, not {resource.name!r}")
        if int(resource.name) not in controller.image.brokers:
            raise BrokerIdNotRegistered(f"broker {resource.name} is not registered")


def _check_names(resource: ConfigResource, names: Collection[str]) -> None:
    """Refuse settings of a broker that cannot be altered while it runs, as Kafka does; a name that Kafka does not have
    is refused as unknown. Raises InvalidRequest 42."""
    if resource.resource_type == "client-metrics":
        unknown = sorted(set(names) - settings_by_name(ClientMetricsSettings).keys())
        if unknown:
            raise InvalidRequest(f"Unknown client metrics configuration: {', '.join(unknown)}")
    if resource.resource_type != "broker":
        return
    known = settings_by_name(BrokerSettings)
    fixed = [name for name in names if (not is_dynamic(name) if name in known else kafka_settings.is_kafka_name(name))]
    if fixed:
        raise InvalidRequest(f"Cannot update these configs dynamically: [{', '.join(sorted(fixed))}]")


def _new_value(resource: ConfigResource, change: ConfigAlteration, current: str | None) -> str | None:
    model = MODELS_BY_RESOURCE[resource.resource_type]
    if change.operation == "delete":
        return None  # any name, as in Kafka: its tools unset throttles that this cluster does not have
    if change.value is None:
        raise InvalidRequest(f"operation {change.operation} on {change.name} needs a value")
    if change.operation == "set":
        return _set_value(resource, change.name, change.value)
    if not is_list(model, change.name):
        raise InvalidConfig(f"{change.name} is not a list: it can be set or deleted, not {change.operation}ed")
    return canonical_value(model, change.name, _edited_list(model, change, current))


def _set_value(resource: ConfigResource, name: str, value: str) -> str:
    """Set a value. Raises InvalidConfig 40; InvalidRequest 42 where Kafka raises that, for the interval of client
    metrics."""
    try:
        return canonical_value(MODELS_BY_RESOURCE[resource.resource_type], name, value)
    except InvalidConfig as error:
        if name == "interval.ms" and value.strip().removeprefix("-").isdecimal():
            raise InvalidRequest(error.message) from error
        raise


def _edited_list(model: SettingsModel, change: ConfigAlteration, current: str | None) -> str:
    """Append to or subtract from a list; a list that is not set begins as its default, as in Kafka."""
    items = (canonical_value(model, change.name, None) if current is None else current).split(",")
    edited = [item.strip() for item in (change.value or "").split(",") if item.strip()]
    if change.operation == "append":
        return ",".join([*items, *(item for item in edited if item not in items)])
    return ",".join(item for item in items if item not in edited)
