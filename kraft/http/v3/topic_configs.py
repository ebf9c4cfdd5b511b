"""v3 configs of topics; `-` stands for every topic."""

from __future__ import annotations

from aiohttp import web

from kraft.broker.configs import ConfigEntry, topic_configs
from kraft.http.endpoint import Call
from kraft.http.errors import BAD_REQUEST, V3_TOPIC_NOT_FOUND, HttpError, from_kafka
from kraft.http.v3 import models
from kraft.http.v3.config_changes import (
    CHANGE_ERRORS,
    alter_many,
    alteration,
    check_names,
    config_fields,
    one_config,
    reset_one,
    set_one,
)
from kraft.http.v3.envelope import Document, answer, crn, listing, no_content, resource, route
from metadata.acls import AclOperation, AclResource
from metadata.controller.requests import AlterConfigs, ConfigAlteration, ConfigResource, ErrorDetail


def _document(call: Call, topic: str, entry: ConfigEntry) -> Document:
    path = ("topics", topic, "configs", entry.name)
    name = crn(call, topic=topic, config=entry.name)
    return resource(call, "KafkaTopicConfig", path, name, {"topic_name": topic, **config_fields(entry)})


async def list_topic_configs(call: Call) -> web.Response:
    """DescribeConfigs of a topic: 200 with all its settings. Raises HttpError 40403."""
    return _listing(call, call.topic, [call.context.topic_or_raise(call.topic).name])


async def list_all_topic_configs(call: Call) -> web.Response:
    """The same of all topics."""
    may = call.permissions
    return _listing(
        call,
        "-",
        [
            name
            for name in call.context.gateway.image.topics_by_name
            if may is None or may.silently(AclOperation.DESCRIBE_CONFIGS, AclResource.TOPIC, name)
        ],
    )


def _listing(call: Call, shown: str, topics: list[str]) -> web.Response:
    gateway = call.context.gateway
    documents = (_document(call, topic, entry) for topic in topics for entry in topic_configs(gateway, topic))
    return answer(listing(call, "KafkaTopicConfigList", ("topics", shown, "configs"), documents))


async def get_topic_config(call: Call) -> web.Response:
    """200 with one setting of a topic. Raises HttpError 40403, 404 for no such setting."""
    topic = call.context.topic_or_raise(call.topic).name
    entries = topic_configs(call.context.gateway, topic)
    entry = one_config(entries, call.path["name"], of=f"topic {topic}")
    return answer(_document(call, topic, entry))


def _resource(call: Call) -> ConfigResource:
    return ConfigResource(resource_type="topic", name=call.context.topic_or_raise(call.topic).name)


async def set_topic_config(call: Call) -> web.Response:
    """204; one setting of a topic. Raises HttpError 40403, 404, InvalidConfig 40."""
    return await set_one(call, _resource(call))


async def reset_topic_config(call: Call) -> web.Response:
    """204; the topic has the cluster's default again. Raises HttpError 40403, 404."""
    return await reset_one(call, _resource(call))


async def alter_topic_configs(call: Call) -> web.Response:
    """IncrementalAlterConfigs of a topic, all or none: 204. Raises HttpError 40403, InvalidConfig 40."""
    return await alter_many(call, _resource(call))


async def alter_configs_of_topics(call: Call) -> web.Response:
    """IncrementalAlterConfigs of several topics: of each topic, all changes or none; 207 with the topics that were
    refused. With an unknown topic or setting nothing at all changes: HttpError 40403, 404."""
    asked = call.model(models.TopicsConfigChanges)
    changes: dict[ConfigResource, tuple[ConfigAlteration, ...]] = {}
    for each in asked.data:
        resource = ConfigResource(resource_type="topic", name=each.topic_name)
        if resource in changes:
            raise HttpError(BAD_REQUEST, f"topic {each.topic_name!r} is there twice; send its changes together")
        call.context.topic_or_raise(each.topic_name)
        check_names(resource, [change.name for change in each.configs])
        changes[resource] = tuple(alteration(change) for change in each.configs)
    outcomes = await call.context.control(AlterConfigs(resources=changes, validate_only=asked.validate_only))
    refused = {resource.name: outcome for resource, outcome in outcomes.items() if outcome is not None}
    if not refused:
        return no_content()
    failures = [_failure(topic, detail) for topic, detail in refused.items()]
    return answer({"failures": failures}, status=207)


def _failure(topic: str, detail: ErrorDetail) -> Document:
    error = from_kafka(detail.exception(), unknown_topic=V3_TOPIC_NOT_FOUND)
    return {"topic_name": topic, "error_code": error.code, "message": error.message}


_ALL = "/topics/-/configs"
_OF = "/topics/{topic}/configs"
_LIST = models.Listing[models.TopicConfig]
_ERRORS = (*CHANGE_ERRORS, 40403)

ROUTES = (
    route("GET", _ALL, list_all_topic_configs, "Configs of all topics.", _LIST),
    route(
        "POST",
        _ALL + ":alter",
        alter_configs_of_topics,
        "Change configs of several topics; 207 when some were refused.",
        body=models.TopicsConfigChanges,
        also={207: models.TopicsConfigAnswer},
        errors=_ERRORS,
    ),
    route("GET", _OF, list_topic_configs, "Configs of a topic.", _LIST, errors=(40403,)),
    route(
        "POST",
        _OF + ":alter",
        alter_topic_configs,
        "Change configs of a topic, all or none.",
        body=models.ConfigChanges,
        errors=_ERRORS,
    ),
    route("GET", _OF + "/{name}", get_topic_config, "One config.", models.TopicConfig, errors=(40403,)),
    route("PUT", _OF + "/{name}", set_topic_config, "Set a config.", body=models.ConfigUpdate, errors=_ERRORS),
    route("DELETE", _OF + "/{name}", reset_topic_config, "Reset a config to its default.", errors=_ERRORS),
)
