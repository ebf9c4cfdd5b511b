"""The parameters that stand in paths, described once for all routes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kraft.http.docs.assets import ASSETS
from kraft.protocol.primitives import INT32_MAX

TOPIC_PATTERN = "^[a-zA-Z0-9._-]{1,249}$"
_NUMBER: Mapping[str, Any] = {"type": "integer", "minimum": 0, "maximum": INT32_MAX}
_TEXT: Mapping[str, Any] = {"type": "string", "minLength": 1}


@dataclass(frozen=True, slots=True)
class PathParameter:
    description: str
    schema: Mapping[str, Any]


PATH_PARAMETERS: Mapping[str, PathParameter] = {
    "topic": PathParameter("Name of a topic.", {"type": "string", "pattern": TOPIC_PATTERN}),
    "partition": PathParameter("Number of a partition, from 0.", _NUMBER),
    "broker_id": PathParameter("Id of a broker.", _NUMBER),
    "cluster_id": PathParameter("Id of this cluster, as `GET /v3/clusters` tells.", _TEXT),
    "group": PathParameter("Name of a consumer group.", _TEXT),
    "instance": PathParameter("Name of a consumer instance: `instance_id` of its creation.", _TEXT),
    "transactional_id": PathParameter("The transactional.id of a producer.", _TEXT),
    "consumer": PathParameter("Member id of a consumer.", _TEXT),
    "asset": PathParameter("Name of a file.", {"type": "string", "enum": list(ASSETS)}),
    "name": PathParameter("Name of a setting, as Kafka names it.", _TEXT),
}


def parameters_in(path: str) -> list[str]:
    return re.findall(r"{(\w+)}", path)
