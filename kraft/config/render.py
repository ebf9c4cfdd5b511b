"""A complete configuration as TOML text, so that every node of a cluster starts from the same resolved file. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from kraft.config.models import ClusterConfig, NodeConfig
from kraft.protocol.primitives import SettingValue

KEYS = (
    *("id", "roles", "host", "bind", "rest_port", "kafka_port", "quorum_port", "advertised"),
    *("kafka_protocol", "rest_protocol"),
    *("data", "log_dirs", "rack"),
)
"""Keys of a node, without its tables."""


def render(config: ClusterConfig, *, secret_file: str) -> str:
    """The text of a configuration. It has the secret's file, not the secret, and the
    users with their passwords: only the owner may read it. `parse_config` of it returns the same
    one."""
    lines = ["# Written by kraft: the configuration that this cluster runs with.", ""]
    lines += [f"cluster_id = {_value(config.cluster_id)}", f"secret_file = {_value(secret_file)}"]
    lines += [f"data = {_value(config.data)}", f"strict = {_value(config.strict)}"]
    lines += [] if config.tls_mode is None else [f"tls_mode = {_value(config.tls_mode)}"]
    lines += ["", "[settings]"]
    lines += [f"{name} = {_value(value)}" for name, value in config.settings.items()]
    for user in config.users:
        password = "" if user.password is None else user.password.get_secret_value()
        lines += ["", "[[users]]", f"name = {_value(user.name)}", f"password = {_value(password)}"]
    for node in config.nodes:
        lines += ["", *_node_lines(node)]
    return "\n".join(lines) + "\n"


def _node_lines(node: NodeConfig) -> Iterator[str]:
    yield "[[nodes]]"
    for key in KEYS:
        value = getattr(node, key)
        if value is not None:
            yield f"{key} = {_value(value)}"
    for peer, addresses in node.peers.items():
        for purpose, address in addresses.model_dump(exclude_none=True).items():
            yield f"peers.{peer}.{purpose} = {_value(address)}"
    for name, setting in node.settings.items():
        yield f"settings.{name} = {_value(setting)}"
    for listener in node.listeners:
        yield "[[nodes.listeners]]"
        for key, text in listener.model_dump(exclude_none=True).items():
            yield f"{key} = {_value(text)}"


def _value(value: SettingValue | Sequence[str]) -> str:
    """A value as TOML: JSON's strings, numbers, booleans and arrays of strings are TOML's too."""
    return json.dumps(value, ensure_ascii=False)
