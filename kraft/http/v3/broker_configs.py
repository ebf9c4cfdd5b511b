"""v3 configs of one broker (`/brokers/{id}/configs`), of all, and cluster-wide (`/broker-configs`)."""

from __future__ import annotations

from aiohttp import web

from kraft.broker.configs import ConfigEntry, broker_configs, cluster_configs
from kraft.http.endpoint import Call
from kraft.http.v3 import models
from kraft.http.v3.brokers import find_broker
from kraft.http.v3.config_changes import (
    CHANGE_ERRORS,
    CLUSTER_WIDE,
    alter_many,
    config_fields,
    one_config,
    reset_one,
    set_one,
)
from kraft.http.v3.envelope import Document, answer, crn, listing, resource, route
from metadata.controller.requests import ConfigResource


def _document(call: Call, broker: int, entry: ConfigEntry) -> Document:
    path = ("brokers", broker, "configs", entry.name)
    name = crn(call, broker=broker, config=entry.name)
    return resource(call, "KafkaBrokerConfig", path, name, {"broker_id": broker, **config_fields(entry)})


def _cluster_document(call: Call, entry: ConfigEntry) -> Document:
    path = ("broker-configs", entry.name)
    name = crn(call, broker_config=entry.name)
    return resource(call, "KafkaClusterConfig", path, name, {"config_type": "BROKER", **config_fields(entry)})


async def list_broker_configs(call: Call) -> web.Response:
    """DescribeConfigs of a broker: 200 with all its settings. Raises HttpError 404."""
    number = find_broker(call).broker_id
    documents = [_document(call, number, entry) for entry in broker_configs(call.context.gateway, number)]
    return answer(listing(call, "KafkaBrokerConfigList", ("brokers", number, "configs"), documents))


async def list_all_broker_configs(call: Call) -> web.Response:
    """The same of all brokers, by id."""
    gateway = call.context.gateway
    brokers = sorted(gateway.image.brokers)
    documents = [_document(call, number, entry) for number in brokers for entry in broker_configs(gateway, number)]
    return answer(listing(call, "KafkaBrokerConfigList", ("brokers", "-", "configs"), documents))


async def get_broker_config(call: Call) -> web.Response:
    """200 with one setting of a broker. Raises HttpError 404 for no such broker or setting."""
    number = find_broker(call).broker_id
    entries = broker_configs(call.context.gateway, number)
    return answer(_document(call, number, one_config(entries, call.path["name"], of=f"broker {number}")))


def _resource(call: Call) -> ConfigResource:
    return ConfigResource(resource_type="broker", name=str(find_broker(call).broker_id))


async def set_broker_config(call: Call) -> web.Response:
    """204; one dynamic setting of one broker. Raises HttpError 404, InvalidConfig 40."""
    return await set_one(call, _resource(call))


async def reset_broker_config(call: Call) -> web.Response:
    """204; the broker has the cluster-wide value again, or the default."""
    return await reset_one(call, _resource(call))


async def alter_broker_configs(call: Call) -> web.Response:
    """IncrementalAlterConfigs of a broker, all or none: 204. Raises HttpError 404, InvalidConfig 40."""
    return await alter_many(call, _resource(call))


async def list_cluster_configs(call: Call) -> web.Response:
    """200 with the dynamic settings that all brokers share, and have been given a value."""
    documents = [_cluster_document(call, entry) for entry in cluster_configs(call.context.gateway)]
    return answer(listing(call, "KafkaClusterConfigList", ("broker-configs",), documents))


async def get_cluster_config(call: Call) -> web.Response:
    """200 with one of them. Raises HttpError 404."""
    entry = one_config(cluster_configs(call.context.gateway), call.path["name"], of="the cluster")
    return answer(_cluster_document(call, entry))


async def set_cluster_config(call: Call) -> web.Response:
    """204; one dynamic setting of all brokers. Raises InvalidConfig 40."""
    return await set_one(call, CLUSTER_WIDE)


async def reset_cluster_config(call: Call) -> web.Response:
    """204; brokers have their default again."""
    return await reset_one(call, CLUSTER_WIDE)


async def alter_cluster_configs(call: Call) -> web.Response:
    """IncrementalAlterConfigs of all brokers, all or none: 204. Raises InvalidConfig 40."""
    return await alter_many(call, CLUSTER_WIDE)


_OF = "/brokers/{broker_id}/configs"
_WIDE = "/broker-configs"
_CHANGES = models.ConfigChanges
_LIST = models.Listing[models.BrokerConfig]
_WIDE_LIST = models.Listing[models.ClusterConfig]

ROUTES = (
    route("GET", "/brokers/-/configs", list_all_broker_configs, "Configs of all brokers.", _LIST),
    route("GET", _OF, list_broker_configs, "Configs of a broker.", _LIST),
    route(
        "POST", _OF + ":alter", alter_broker_configs, "Change configs of a broker.", body=_CHANGES, errors=CHANGE_ERRORS
    ),
    route("GET", _OF + "/{name}", get_broker_config, "One config.", models.BrokerConfig),
    route("PUT", _OF + "/{name}", set_broker_config, "Set a config.", body=models.ConfigUpdate, errors=CHANGE_ERRORS),
    route("DELETE", _OF + "/{name}", reset_broker_config, "Reset a config.", errors=CHANGE_ERRORS),
    route("GET", _WIDE, list_cluster_configs, "Cluster-wide dynamic configs.", _WIDE_LIST),
    route(
        "POST",
        _WIDE + ":alter",
        alter_cluster_configs,
        "Change cluster-wide configs.",
        body=_CHANGES,
        errors=CHANGE_ERRORS,
    ),
    route("GET", _WIDE + "/{name}", get_cluster_config, "One cluster-wide config.", models.ClusterConfig),
    route(
        "PUT",
        _WIDE + "/{name}",
        set_cluster_config,
        "Set a cluster-wide config.",
        body=models.ConfigUpdate,
        errors=CHANGE_ERRORS,
    ),
    route("DELETE", _WIDE + "/{name}", reset_cluster_config, "Reset a cluster-wide config.", errors=CHANGE_ERRORS),
)
