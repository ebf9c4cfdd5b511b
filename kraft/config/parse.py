"""TOML text -> `ClusterFile`, or one `ConfigError` with every problem of the file. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from kraft.config.checks import check_cluster, contradictions
from kraft.config.models import ClusterFile, ListenerConfig, NodeConfig, PeerAddresses, UserConfig
from kraft.config.positions import key_lines, line_of
from kraft.config.problems import (
    ConfigError,
    Problem,
    expected,
    found,
    is_unknown,
    nearest,
    sentence,
    setting_problems,
)
from kraft.config.toml import parse_toml
from metadata.settings import BrokerSettings

REST_PORT_FIRST: Final = 8082
KAFKA_PORT_FIRST: Final = 9092
QUORUM_PORT_FIRST: Final = 9192
DATA_DEFAULT: Final = "data"


def parse_config(text: str, *, file: str = "cluster.toml", data: str | None = None) -> ClusterFile:
    """Parse a file. `data` (the command line's --data) overrides the file's. Raises ConfigError."""
    lines = key_lines(text)
    document = parse_toml(text, file=file)
    completed = _complete(document, data=data or document.get("data") or DATA_DEFAULT)
    problems = list(_setting_problems(completed, lines))
    try:
        parsed = ClusterFile.model_validate(completed)
    except ValidationError as error:
        problems += [_problem(details, lines) for details in _causes(error.errors())]
        raise ConfigError(file, problems) from error
    problems += check_cluster(parsed, lines)
    if not problems:
        problems = contradictions(parsed, lines)
    if problems:
        raise ConfigError(file, problems)
    return parsed


def _complete(document: Mapping[str, Any], *, data: str) -> dict[str, Any]:
    """The document with settings flattened to Kafka's dotted names, and with defaults that depend on a node's place."""
    completed = dict(document) | {"data": data}
    if isinstance(completed.get("settings"), dict):
        completed["settings"] = dict(_leaves(completed["settings"]))
    nodes = completed.get("nodes")
    if isinstance(nodes, list):
        completed["nodes"] = [_complete_node(node, index, data) for index, node in enumerate(nodes)]
    return completed


def _complete_node(node: Any, index: int, data: object) -> Any:
    if not isinstance(node, dict):
        return node
    folder = node.get("data") or posixpath.join(str(data), f"node-{node.get('id', index + 1)}")
    defaults: dict[str, Any] = {
        "rest_port": REST_PORT_FIRST + index,
        "kafka_port": KAFKA_PORT_FIRST + index,
        "quorum_port": QUORUM_PORT_FIRST + index,
        "data": folder,
        "log_dirs": [posixpath.join(str(folder), "logs")],
    }
    completed = defaults | node
    if isinstance(completed.get("settings"), dict):
        completed["settings"] = dict(_leaves(completed["settings"]))
    return completed


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten a table: TOML nests bare dotted keys; Kafka's names are flat."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _setting_problems(document: Mapping[str, Any], lines: Mapping[str, int]) -> Iterator[Problem]:
    layers = [("settings", document.get("settings"))]
    nodes = document.get("nodes")
    for index, node in enumerate(nodes if isinstance(nodes, list) else ()):
        if isinstance(node, dict):
            layers.append((f"nodes.{index}.settings", node.get("settings")))
    for path, settings in layers:
        if isinstance(settings, dict):
            yield from _layer_problems(path, settings, lines)


def _layer_problems(path: str, settings: Mapping[str, Any], lines: Mapping[str, int]) -> Iterator[Problem]:
    for problem in setting_problems(BrokerSettings, settings):
        yield replace(problem, line=line_of(f"{path}.{problem.key}", lines))


def _causes(errors: list[ErrorDetails]) -> Iterator[ErrorDetails]:
    """Errors without those that only follow from another: a tuple is also too short when its elements are bad."""
    for details in errors:
        depth = len(details["loc"])
        below = [other for other in errors if len(other["loc"]) > depth and other["loc"][:depth] == details["loc"]]
        if details["type"] != "too_short" or not below:
            yield details


def _problem(details: ErrorDetails, lines: Mapping[str, int]) -> Problem:
    path = ".".join(str(part) for part in details["loc"])
    model, name = _model_of(details["loc"])
    right = (
        nearest(name, model.model_fields) if is_unknown(details) else f"it {expected(details)}{sentence(model, name)}"
    )
    return Problem(key=name, wrong=found(details, kind="key"), right=right, line=line_of(path, lines))


def _model_of(location: tuple[int | str, ...]) -> tuple[type[BaseModel], str]:
    """The model that a pydantic location lies in, and the key there."""
    if location[0] == "users" and len(location) > 2:
        return UserConfig, str(location[2])
    if location[0] != "nodes" or len(location) < 3:
        return ClusterFile, str(location[0])
    if location[2] == "peers" and len(location) > 4:
        return PeerAddresses, str(location[4])
    if location[2] == "listeners" and len(location) > 4:
        return ListenerConfig, str(location[4])
    return NodeConfig, str(location[2])
