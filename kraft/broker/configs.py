"""Effective settings as Kafka shows them: value, default or not, and where the value comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from kraft.broker.gateway import Gateway
from kraft.protocol.primitives import INT32_MAX
from metadata.settings import (
    BROKER_SYNONYMS,
    GROUP_SYNONYMS,
    INTERNAL_TOPIC_SETTINGS,
    SENSITIVE,
    BrokerSettings,
    ClientMetricsSettings,
    GroupSettings,
    SettingsModel,
    TopicSettings,
    applied,
    group_settings,
    is_dynamic,
    is_list,
    setting_text,
    settings_by_name,
    topic_settings,
)

Kind: TypeAlias = Literal["boolean", "string", "int", "long", "double", "list"]
"""The type of a setting, of Kafka's (ConfigDef.Type) those that occur here."""

DYNAMIC_TOPIC = "DYNAMIC_TOPIC_CONFIG"
DYNAMIC_GROUP = "GROUP_CONFIG"
DYNAMIC_CLIENT_METRICS = "CLIENT_METRICS_CONFIG"
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
    """`synonyms` are the places that set it, the strongest first. A value that the metadata log has and that is not
    applied comes last. `value` is None where no place sets it and it has no default."""

    name: str
    value: str | None
    synonyms: tuple[Synonym, ...]
    kind: Kind
    documentation: str
    is_read_only: bool = False

    @property
    def is_sensitive(self) -> bool:
        """Whether nobody is shown the value."""
        return self.name in SENSITIVE

    def shown(self, value: str | None) -> str | None:
        """A value of this setting as everybody may see it: None in place of a secret, as in Kafka."""
        return None if self.is_sensitive else value

    @property
    def source(self) -> str:
        return self.synonyms[0].source if self.synonyms else DEFAULT

    @property
    def is_default(self) -> bool:
        return self.source == DEFAULT


_BROKER_DEFAULTS = {name: setting_text(value) for name, value in BrokerSettings().model_dump(by_alias=True).items()}
_LISTS_OF_A_NODE = frozenset(
    {"process.roles", "listeners", "advertised.listeners", "controller.quorum.voters", "log.dirs"}
)
_NUMBERS_OF_A_NODE = frozenset({"node.id", "broker.id"})
_WITHOUT_DEFAULT = frozenset({"broker.rack"})
"""Settings that Kafka describes with null where nothing sets them."""


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    return {name: setting_text(value) for name, value in values.items()}


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
    image, layers = gateway.image, _layers(gateway, broker_id)
    stored = (image.config("broker", str(broker_id)), DYNAMIC_BROKER), (image.config("broker", ""), DYNAMIC_DEFAULT)
    ignored = [
        ({name: values[name] for name in values.keys() - applied(values).keys()}, source) for values, source in stored
    ]
    names = {name for values, _ in (*layers, *ignored) for name in values}
    for name in sorted(names | _WITHOUT_DEFAULT):
        yield _broker_entry(name, (*_synonyms(layers, name), *_synonyms(ignored, name)))


def cluster_configs(gateway: Gateway) -> Iterator[ConfigEntry]:
    """The cluster-wide dynamic defaults that are set, applied or not. Kafka names no other place for them."""
    for name, value in sorted(gateway.image.config("broker", "").items()):
        yield _broker_entry(name, (Synonym(name, value, DYNAMIC_DEFAULT),))


def _broker_entry(name: str, synonyms: tuple[Synonym, ...]) -> ConfigEntry:
    if name in _BROKER_DEFAULTS:
        entry = _entry(BrokerSettings, name, synonyms[0].value, synonyms)
        return replace(entry, is_read_only=not is_dynamic(name))
    kind: Kind = "list" if name in _LISTS_OF_A_NODE else "int" if name in _NUMBERS_OF_A_NODE else "string"
    value = synonyms[0].value if synonyms else None
    is_own = name in _WITHOUT_DEFAULT or synonyms[0].source == STATIC
    text = "Of the [[nodes]] table of cluster.toml." if is_own else ""
    return ConfigEntry(name=name, value=value, synonyms=synonyms, kind=kind, documentation=text, is_read_only=True)


def topic_configs(gateway: Gateway, topic: str) -> Iterator[ConfigEntry]:
    return _of_topic(gateway, gateway.topic_settings(topic), gateway.image.config("topic", topic))


def new_topic_configs(gateway: Gateway, overrides: Mapping[str, str]) -> Iterator[ConfigEntry]:
    """The configs of a topic that is created with these settings, whether this node knows it yet or not."""
    return _of_topic(gateway, topic_settings(gateway.settings, overrides), overrides)


def _of_topic(gateway: Gateway, settings: TopicSettings, overrides: Mapping[str, str]) -> Iterator[ConfigEntry]:
    effective = _texts(settings.model_dump(by_alias=True))
    defaults = _texts(TopicSettings().model_dump(by_alias=True))
    layers = _layers(gateway, gateway.node_id)
    for name in sorted(effective.keys() - (INTERNAL_TOPIC_SETTINGS - overrides.keys())):
        synonyms: list[Synonym] = []
        if name in overrides:
            synonyms.append(Synonym(name, overrides[name], DYNAMIC_TOPIC))
        broker_name = BROKER_SYNONYMS.get(name)
        if broker_name is None:
            synonyms += [Synonym(name, defaults[name], DEFAULT)] if name not in INTERNAL_TOPIC_SETTINGS else []
        else:
            synonyms.extend(_synonyms(layers, broker_name))
        yield _entry(TopicSettings, name, effective[name], tuple(synonyms))


def group_configs(gateway: Gateway, group: str) -> Iterator[ConfigEntry]:
    """The configs of a group, whether there is one of that name or not."""
    overrides = gateway.image.config("group", group)
    effective = _texts(group_settings(gateway.settings, overrides).model_dump(by_alias=True))
    layers = _layers(gateway, gateway.node_id)
    for name in sorted(effective):
        own = (Synonym(name, overrides[name], DYNAMIC_GROUP),) if name in overrides else ()
        synonyms = (*own, *(_synonyms(layers, GROUP_SYNONYMS[name]) if name in GROUP_SYNONYMS else ()))
        yield _entry(GroupSettings, name, effective[name], synonyms)


def client_metrics_configs(gateway: Gateway, subscription: str) -> Iterator[ConfigEntry]:
    """The settings of a subscription to client metrics (KIP-714), whether there is one of that name or not."""
    overrides = gateway.image.config("client-metrics", subscription)
    for name, default in sorted(_texts(ClientMetricsSettings().model_dump(by_alias=True)).items()):
        own = (Synonym(name, overrides[name], DYNAMIC_CLIENT_METRICS),) if name in overrides else ()
        yield _entry(ClientMetricsSettings, name, overrides.get(name, default), own)


Layer: TypeAlias = tuple[Mapping[str, str], str]
"""Values by name, and the source that they have in common."""


def _layers(gateway: Gateway, broker_id: int) -> Sequence[Layer]:
    """Where a broker has its settings from, the strongest first."""
    return (
        (applied(gateway.image.config("broker", str(broker_id))), DYNAMIC_BROKER),
        (applied(gateway.image.config("broker", "")), DYNAMIC_DEFAULT),
        (gateway.described_settings, STATIC),
        (_BROKER_DEFAULTS, DEFAULT),
    )


def _synonyms(layers: Sequence[Layer], name: str) -> list[Synonym]:
    return [Synonym(name, values[name], source) for values, source in layers if name in values]
