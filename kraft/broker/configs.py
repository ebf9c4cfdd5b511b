"""Effective settings as Kafka shows them: value, default or not, and where the value comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from kraft.broker.gateway import Gateway
from kraft.protocol.primitives import INT32_MAX
from metadata.settings import (
    BROKER_SYNONYMS,
    GROUP_SYNONYMS,
    STATIC_SETTINGS,
    BrokerSettings,
    GroupSettings,
    SettingsModel,
    TopicSettings,
    group_settings,
    is_list,
    settings_by_name,
    topic_settings,
)

Kind: TypeAlias = Literal["boolean", "string", "int", "long", "double", "list"]
"""The type of a setting, of Kafka's (ConfigDef.Type) those that occur here."""

DYNAMIC_TOPIC = "DYNAMIC_TOPIC_CONFIG"
DYNAMIC_GROUP = "GROUP_CONFIG"
DYNAMIC_BROKER = "DYNAMIC_BROKER_CONFIG"
DYNAMIC_DEFAULT = "DYNAMIC_DEFAULT_BROKER_CONFIG"
STATIC = "STATIC_BROKER_CONFIG"
DEFAULT = "DEFAULT_CONFIG"


@dataclass(frozen=True, slots=True)
class Synonym:
    name: str
    value: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigEntry:
    """`synonyms` are the places that set it, the strongest first; the last one is the built-in default."""

    name: str
    value: str
    synonyms: tuple[Synonym, ...]
    kind: Kind
    documentation: str

    @property
    def is_read_only(self) -> bool:
        return self.name in STATIC_SETTINGS

    @property
    def source(self) -> str:
        return self.synonyms[0].source

    @property
    def is_default(self) -> bool:
        return self.source == DEFAULT


def config_text(value: object) -> str:
    """A setting as Kafka writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


_BROKER_DEFAULTS = {name: config_text(value) for name, value in BrokerSettings().model_dump(by_alias=True).items()}


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    return {name: config_text(value) for name, value in values.items()}


def _entry(model: SettingsModel, name: str, value: str, synonyms: tuple[Synonym, ...]) -> ConfigEntry:
    field = settings_by_name(model)[name]
    kind = "list" if is_list(model, name) else _kind(field)
    return ConfigEntry(name=name, value=value, synonyms=synonyms, kind=kind, documentation=field.description or "")


def _kind(field: Any) -> Kind:
    if field.annotation is bool:
        return "boolean"
    if field.annotation is float:
        return "double"
    if field.annotation is not int:
        return "string"
    most = max((limit.le for limit in field.metadata if hasattr(limit, "le")), default=INT32_MAX)
    return "int" if most <= INT32_MAX else "long"


def broker_configs(gateway: Gateway, broker_id: int) -> Iterator[ConfigEntry]:
    """The settings of a broker. Static values are those of this node's own file."""
    for name in sorted(_BROKER_DEFAULTS):
        synonyms = tuple(_broker_synonyms(gateway, broker_id, name, _static(gateway)))
        yield _entry(BrokerSettings, name, synonyms[0].value, synonyms)


def cluster_configs(gateway: Gateway) -> Iterator[ConfigEntry]:
    """The cluster-wide dynamic defaults that are set."""
    for name, value in sorted(gateway.image.config("broker", "").items()):
        default = Synonym(name, _BROKER_DEFAULTS[name], DEFAULT)
        yield _entry(BrokerSettings, name, value, (Synonym(name, value, DYNAMIC_DEFAULT), default))


def topic_configs(gateway: Gateway, topic: str) -> Iterator[ConfigEntry]:
    return _of_topic(gateway, gateway.topic_settings(topic), gateway.image.config("topic", topic))


def new_topic_configs(gateway: Gateway, overrides: Mapping[str, str]) -> Iterator[ConfigEntry]:
    """Of a topic that is created with these settings, whether this node knows it yet or not."""
    return _of_topic(gateway, topic_settings(gateway.settings, overrides), overrides)


def _of_topic(gateway: Gateway, settings: TopicSettings, overrides: Mapping[str, str]) -> Iterator[ConfigEntry]:
    effective = _texts(settings.model_dump(by_alias=True))
    defaults = _texts(TopicSettings().model_dump(by_alias=True))
    static = _static(gateway)
    for name in sorted(effective):
        synonyms: list[Synonym] = []
        if name in overrides:
            synonyms.append(Synonym(name, overrides[name], DYNAMIC_TOPIC))
        broker_name = BROKER_SYNONYMS.get(name)
        if broker_name is None:
            synonyms.append(Synonym(name, defaults[name], DEFAULT))
        else:
            synonyms.extend(_broker_synonyms(gateway, gateway.node_id, broker_name, static))
        yield _entry(TopicSettings, name, effective[name], tuple(synonyms))


def group_configs(gateway: Gateway, group: str) -> Iterator[ConfigEntry]:
    """Of a group, whether there is one of that name or not."""
    overrides = gateway.image.config("group", group)
    effective = _texts(group_settings(gateway.settings, overrides).model_dump(by_alias=True))
    static = _static(gateway)
    for name in sorted(effective):
        own = (Synonym(name, overrides[name], DYNAMIC_GROUP),) if name in overrides else ()
        synonyms = (*own, *_broker_synonyms(gateway, gateway.node_id, GROUP_SYNONYMS[name], static))
        yield _entry(GroupSettings, name, effective[name], synonyms)


def _static(gateway: Gateway) -> dict[str, str]:
    """What cluster.toml sets: the fields given to this node's settings that no dynamic layer explains."""
    settings, image = gateway.settings, gateway.image
    dynamic = {**image.config("broker", ""), **image.config("broker", str(gateway.node_id))}
    given = settings.model_dump(by_alias=True, exclude_unset=True)
    return {name: config_text(value) for name, value in given.items() if name not in dynamic}


def _broker_synonyms(gateway: Gateway, broker_id: int, name: str, static: Mapping[str, str]) -> Iterator[Synonym]:
    layers = (
        (gateway.image.config("broker", str(broker_id)), DYNAMIC_BROKER),
        (gateway.image.config("broker", ""), DYNAMIC_DEFAULT),
        (static, STATIC),
        (_BROKER_DEFAULTS, DEFAULT),
    )
    for values, source in layers:
        if name in values:
            yield Synonym(name, values[name], source)
