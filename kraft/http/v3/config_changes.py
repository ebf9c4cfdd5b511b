"""What topic, broker and cluster-wide configs share: their documents and their changes (KIP-339)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from aiohttp import web

from kraft.broker.configs import ConfigEntry
from kraft.http.endpoint import Call
from kraft.http.errors import PAYLOAD, HttpError
from kraft.http.v3 import models
from kraft.http.v3.envelope import Document, no_content, raise_refusal
from kraft.suggestions import nearest_key_hint
from metadata.controller.requests import AlterConfigs, ConfigAlteration, ConfigResource
from metadata.settings import MODELS_BY_RESOURCE, settings_by_name

CLUSTER_WIDE = ConfigResource(resource_type="broker", name="")
Operation = Literal["set", "delete", "append", "subtract"]
_OPERATIONS: dict[str, Operation] = {"SET": "set", "DELETE": "delete", "APPEND": "append", "SUBTRACT": "subtract"}


def config_fields(entry: ConfigEntry) -> Document:
    return {
        "name": entry.name,
        "value": entry.shown(entry.value),
        "is_default": entry.is_default,
        "is_read_only": entry.is_read_only,
        "is_sensitive": entry.is_sensitive,
        "source": entry.source,
        "synonyms": [{"name": s.name, "value": entry.shown(s.value), "source": s.source} for s in entry.synonyms],
    }


def is_of_share_groups(name: str) -> bool:
    """Whether a setting of groups has a meaning for share groups."""
    return not name.startswith("consumer.")


def one_config(entries: Iterable[ConfigEntry], name: str, *, of: str) -> ConfigEntry:
    """The entry of this name. Raises HttpError 404; `of` names the resource in its message."""
    for entry in entries:
        if entry.name == name:
            return entry
    raise HttpError(404, f"Config {name} cannot be found for {of}.")


async def alter(
    call: Call, resource: ConfigResource, changes: Sequence[ConfigAlteration], *, validate_only: bool = False
) -> web.Response:
    """Alters the settings of one resource, all or none, and answers 204. Raises KafkaError."""
    alterations = {resource: tuple(changes)}
    outcomes = await call.context.control(AlterConfigs(resources=alterations, validate_only=validate_only))
    raise_refusal(outcomes[resource])
    return no_content()


def check_names(resource: ConfigResource, names: Iterable[str]) -> None:
    """Raises HttpError 404 for a setting that a topic, a broker or a share group does not have, as Confluent's proxy,
    which looks for it before it changes anything; cluster-wide ones it leaves to Kafka (AbstractConfigManager)."""
    if resource == CLUSTER_WIDE:
        return
    known = settings_by_name(MODELS_BY_RESOURCE[resource.resource_type])
    if resource.resource_type == "group":
        known = {name: field for name, field in known.items() if is_of_share_groups(name)}
    for name in names:
        if name not in known:
            hint = nearest_key_hint(name, known)
            raise HttpError(404, f"Config {name} cannot be found for {resource.resource_type} {resource.name}: {hint}")


async def set_one(call: Call, resource: ConfigResource) -> web.Response:
    """Sets the setting in the path to the body's `value`: 204. Raises HttpError 404 for a setting that nobody knows,
    42206 without a value."""
    value = call.model(models.ConfigUpdate).value
    if value is None:
        raise HttpError(PAYLOAD, "value is missing; DELETE resets a config to its default")
    check_names(resource, [call.path["name"]])
    change = ConfigAlteration(name=call.path["name"], operation="set", value=value)
    return await alter(call, resource, [change])


async def reset_one(call: Call, resource: ConfigResource) -> web.Response:
    """Gives the setting in the path its default again: 204. Raises HttpError 404."""
    check_names(resource, [call.path["name"]])
    change = ConfigAlteration(name=call.path["name"], operation="delete")
    return await alter(call, resource, [change])


async def alter_many(call: Call, resource: ConfigResource) -> web.Response:
    """Alters the settings of the body's `data`, all or none: 204. Raises HttpError 404."""
    asked = call.model(models.ConfigChanges)
    check_names(resource, [change.name for change in asked.data])
    changes = [alteration(change) for change in asked.data]
    return await alter(call, resource, changes, validate_only=asked.validate_only)


def alteration(change: models.ConfigChange) -> ConfigAlteration:
    """One change of a body as the controller takes it (KIP-339)."""
    operation = _OPERATIONS[change.operation or "SET"]
    if operation != "delete" and change.value is None:
        raise HttpError(PAYLOAD, f"{operation.upper()} of {change.name} needs a value")
    return ConfigAlteration(name=change.name, operation=operation, value=change.value)


CHANGE_ERRORS: tuple[int, ...] = (40002, 50302, 50401)
