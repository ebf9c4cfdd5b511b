"""Preparation and start of a cluster: its configuration is read and its ports are found; then its nodes are started
from one resolved file."""

from __future__ import annotations

import os
from collections.abc import Callable

from kraft.config.models import ClusterConfig, NodeConfig, has_sasl, has_tls
from kraft.config.render import render
from kraft.launcher.client_files import PASSWORD_FILE
from kraft.launcher.configuration import load_config, write_whole
from kraft.launcher.identity import Identity, new_identity
from kraft.launcher.ports import taken_ports, with_free_ports
from kraft.launcher.processes import LaunchError, StartProcess, is_alive, stop_nodes
from kraft.launcher.runfile import (
    CLIENT_FOLDER,
    RESOLVED_FILE,
    WITNESS_FOLDER,
    ClusterRun,
    NodeRun,
    load_run,
    remember_credentials,
    save_run,
)
from kraft.layout import OPERATOR_FILE, SECRET_FILE


def prepare(
    config_file: str | None,
    *,
    text: str | None = None,
    data: str | None,
    free_ports: bool,
    secure: bool = False,
    identity: Callable[[], Identity] = new_identity,
) -> ClusterConfig:
    """Prepare a cluster. `text`: a configuration that is in no file. `secure`: with TLS, a user and ACLs. `identity`:
    that of a new cluster. Raises ConfigError or LaunchError; nothing is started."""
    config = load_config(config_file, text=text, data=data, identity=identity)
    _refuse_second_start(config.data)
    if free_ports:
        config = with_free_ports(config)
    elif taken := taken_ports(config):
        raise LaunchError("\n".join(str(port) for port in taken))
    if not secure:
        _refuse_open_start(config)
        return config
    from kraft.launcher.secured import secured  # it takes time to load, and few clusters need it

    return secured(config)


def launch(
    config: ClusterConfig,
    *,
    parent_pid: int | None,
    start: StartProcess,
    has_witness: bool = False,
    secure: bool = False,
) -> ClusterRun:
    """Start all nodes, and write their run file. They end with `parent_pid`. `secure`: as prepared. Raises LaunchError;
    then none runs."""
    resolved = _write_resolved(config)
    if any(has_sasl(node.rest_protocol) for node in config.nodes):
        write_whole(os.path.join(config.data, OPERATOR_FILE), config.keys.operator.hex() + "\n", mode=0o600)
    witness = os.path.join(config.data, WITNESS_FOLDER) if has_witness else None
    run = ClusterRun(
        cluster_id=config.cluster_id,
        config=resolved,
        data=config.data,
        launcher_pid=parent_pid,
        nodes=(),
        witness=witness,
        client=os.path.join(config.data, CLIENT_FOLDER) if secure else None,
    )
    nodes: list[NodeRun] = []
    try:
        for folder in [run.witness_of(node.id) for node in config.nodes]:
            if folder is not None:
                os.makedirs(folder, mode=0o700, exist_ok=True)
        for node in config.nodes:
            nodes.append(_start(node, run, config, start=start))
    except OSError as error:
        stop_nodes(nodes, say=lambda _: None)
        raise LaunchError(f"node {config.nodes[len(nodes)].id} cannot be started: {error}") from error
    run = run.with_nodes(nodes)
    remember_credentials(run)
    save_run(run)
    return run


def _start(node: NodeConfig, run: ClusterRun, config: ClusterConfig, *, start: StartProcess) -> NodeRun:
    pid = start(
        config=run.config,
        node_id=node.id,
        data=run.data,
        log=os.path.join(node.data, "node.log"),
        parent_pid=run.launcher_pid,
        variables=run.variables(node.id),
    )
    settings, has_https = config.broker_settings(node.id), has_tls(node.rest_protocol)
    return NodeRun(
        id=node.id,
        roles=node.roles,
        pid=pid,
        rest=node.rest_url,
        kafka=str(node.kafka),
        quorum=str(node.quorum) if node.quorum else None,
        data=node.data,
        ca=settings.ssl_truststore_location if has_https else None,
        certificate=settings.ssl_keystore_location if has_https and settings.ssl_client_auth == "required" else None,
        logs_in=has_sasl(node.rest_protocol),
    )


def _refuse_second_start(data: str) -> None:
    run = load_run(data)
    alive = [node for node in run.nodes if is_alive(node.pid)] if run else []
    if alive:
        ids = ", ".join(f"{node.id} (pid {node.pid})" for node in alive)
        raise LaunchError(f"a cluster already runs from {data}: nodes {ids}; stop it with `kraft down --data {data}`")


def _refuse_open_start(config: ClusterConfig) -> None:
    """A cluster that was made with --secure would serve everybody, without a word."""
    folder = os.path.join(config.data, CLIENT_FOLDER)
    is_open = any("PLAINTEXT" in (node.rest_protocol, *node.protocols.values()) for node in config.nodes)
    if is_open and os.path.exists(os.path.join(folder, PASSWORD_FILE)):
        raise LaunchError(
            f"{config.data} was started with --secure, and this start would open it to everybody: add --secure; "
            f"if everybody may have what is in it, remove {folder} first"
        )


def _write_resolved(config: ClusterConfig) -> str:
    """All nodes start from one file with every default filled in; the secret stays in a file of its own."""
    secret_file = os.path.join(config.data, SECRET_FILE)
    write_whole(secret_file, config.secret.get_secret_value() + "\n", mode=0o600)
    resolved = os.path.join(config.data, RESOLVED_FILE)
    write_whole(resolved, render(config, secret_file=secret_file), mode=0o600 if config.users else 0o644)
    return resolved
