"""Checks between the keys of a cluster.toml: unique ids and ports, the roles that a cluster needs. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING

from kraft.config.positions import line_of
from kraft.config.problems import Problem
from metadata.settings import broker_settings, share_contradictions

if TYPE_CHECKING:
    from kraft.config.models import ClusterConfig, ClusterFile, NodeConfig

RESERVED_LISTENERS = frozenset({"PLAINTEXT", "KAFKA", "REST"})
"""Name of the Kafka port for clients, its name for nodes, and the name of HTTP."""


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine for itself: other machines do not reach it."""
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def check_cluster(parsed: ClusterFile, lines: Mapping[str, int]) -> list[Problem]:
    return [
        *_duplicate_ids(parsed.nodes, lines),
        *_duplicate_ports(parsed.nodes, lines),
        *_duplicate_folders(parsed.nodes, lines),
        *_bad_listeners(parsed.nodes, lines),
        *_missing_roles(parsed.nodes, lines),
        *_bad_peers(parsed.nodes, lines),
        *_two_secrets(parsed, lines),
    ]


def contradictions(parsed: ClusterFile, lines: Mapping[str, int]) -> list[Problem]:
    """Settings that are right one by one, and that no broker starts with together; each once."""
    found: dict[tuple[str, str], Problem] = {}
    for index, node in enumerate(parsed.nodes):
        for key, wrong, right in share_contradictions(broker_settings(parsed.settings, node.settings)):
            own, shared = (line_of(f"{path}.{key}", lines) for path in (f"nodes.{index}.settings", "settings"))
            line = own if key in node.settings else shared if key in parsed.settings else 0
            found.setdefault((key, wrong), Problem(key=key, wrong=wrong, right=right, line=line))
    return list(found.values())


def warnings(config: ClusterFile | ClusterConfig) -> list[str]:
    """Warnings about a configuration that starts, but is probably a mistake."""
    settings = broker_settings(config.settings)
    found: list[str] = []
    brokers = sum(node.is_broker for node in config.nodes)
    voters = sum(node.is_voter for node in config.nodes)
    factor, minimum = settings.default_replication_factor, settings.min_insync_replicas
    if factor > brokers:
        found.append(
            f"default.replication.factor={factor} but there are {brokers} brokers: "
            "creating a topic without an explicit factor will fail"
        )
    if minimum > factor:
        found.append(
            f"min.insync.replicas={minimum} is more than default.replication.factor={factor}: "
            "acks=all will be refused on topics that set neither"
        )
    for name in sorted({each.name for node in config.nodes for each in node.listeners}):
        having = {node.id for node in config.nodes if name in (each.name for each in node.listeners)}
        lacking = [str(node.id) for node in config.nodes if node.is_broker and node.id not in having]
        if lacking:
            found.append(f"clients of the listener {name} cannot reach the nodes {', '.join(lacking)}")
    found += _open_to_strangers(config.nodes)
    for path in getattr(config, "readable_secrets", ()):
        found.append(f"{path} has a secret, and may be read by everybody on this machine: chmod o-rwx {path}")
    if voters % 2 == 0:
        found.append(f"{voters} controllers survive no more failures than {voters - 1} would")
    return found


def _open_to_strangers(nodes: tuple[NodeConfig, ...]) -> Iterator[str]:
    """Ports that others than this machine reach, and that ask nobody who it is."""
    for node in nodes:
        ports = [("HTTP port", node.bind_host, node.rest_protocol), ("Kafka port", node.bind_host, node.kafka_protocol)]
        ports += [(f"listener {each.name}", each.host or node.bind_host, each.protocol) for each in node.listeners]
        found = [name for name, host, protocol in ports if not is_loopback(host) and protocol == "PLAINTEXT"]
        if found:
            yield (
                f"node {node.id}: {', '.join(found)}: neither TLS nor users: everybody who reaches "
                f"{'it' if len(found) == 1 else 'them'} may do everything (docs/security.md)"
            )


def _duplicate_ids(nodes: tuple[NodeConfig, ...], lines: Mapping[str, int]) -> Iterator[Problem]:
    seen: dict[int, int] = {}
    for index, node in enumerate(nodes):
        first = seen.setdefault(node.id, index)
        if first != index:
            wrong = f"two nodes have the id {node.id} (the other is on line {line_of(f'nodes.{first}.id', lines)})"
            yield Problem(
                key="id", wrong=wrong, right="each node needs its own id", line=line_of(f"nodes.{index}.id", lines)
            )


def _duplicate_ports(nodes: tuple[NodeConfig, ...], lines: Mapping[str, int]) -> Iterator[Problem]:
    seen: dict[tuple[str, int], str] = {}
    for index, node in enumerate(nodes):
        keys = ("rest_port", "kafka_port", "quorum_port")[: 3 if node.is_voter else 2]
        ports = [(key, key, node.bind_host, getattr(node, key)) for key in keys]
        for place, each in enumerate(node.listeners):
            host = each.host or node.bind_host
            ports.append((f"port of listener {each.name}", f"listeners.{place}.port", host, each.port))
        for name, key, host, port in ports:
            user = f"{name} of node {node.id}"
            first = seen.setdefault((host, port), user)
            if first != user:
                yield Problem(
                    key=key.rpartition(".")[2],
                    wrong=f"port {port} on {host} is also the {first}",
                    right="each listener needs its own port",
                    line=line_of(f"nodes.{index}.{key}", lines),
                )


def _duplicate_folders(nodes: tuple[NodeConfig, ...], lines: Mapping[str, int]) -> Iterator[Problem]:
    folders = Counter(folder for node in nodes for folder in {node.data, *node.log_dirs})
    for index, node in enumerate(nodes):
        for key, values in (("data", (node.data,)), ("log_dirs", node.log_dirs)):
            for folder in values:
                if folders[folder] > 1 and len({n.id for n in nodes if folder in (n.data, *n.log_dirs)}) > 1:
                    yield Problem(
                        key=key,
                        wrong=f"{folder} belongs to more than one node",
                        right="each node needs folders of its own",
                        line=line_of(f"nodes.{index}.{key}", lines),
                    )


def _bad_listeners(nodes: tuple[NodeConfig, ...], lines: Mapping[str, int]) -> Iterator[Problem]:
    for index, node in enumerate(nodes):
        if not node.is_broker and (node.listeners or node.advertised):
            key = "listeners" if node.listeners else "advertised"
            yield Problem(
                key=key,
                wrong=f"node {node.id} has no broker role, and so no clients",
                right="leave it out, or give the node the role broker",
                line=line_of(f"nodes.{index}.{key}", lines),
            )
        names = Counter(each.name.upper() for each in node.listeners)
        for place, each in enumerate(node.listeners):
            if each.name.upper() in RESERVED_LISTENERS:
                taken = ", ".join(sorted(RESERVED_LISTENERS))
                wrong, right = f"{each.name} is a listener that every node has", f"give it another name than {taken}"
            elif names[each.name.upper()] > 1:
                wrong, right = f"node {node.id} has two listeners {each.name}", "each needs its own name"
            else:
                continue
            line = line_of(f"nodes.{index}.listeners.{place}.name", lines)
            yield Problem(key="name", wrong=wrong, right=right, line=line)


def _missing_roles(nodes: tuple[NodeConfig, ...], lines: Mapping[str, int]) -> Iterator[Problem]:
    for role, purpose in (("controller", "the quorum needs a voter"), ("broker", "nobody would hold records")):
        if not any(role in node.roles for node in nodes):
            yield Problem(
                key="roles",
                wrong=f"no node has the role {role}",
                right=f"at least one must: {purpose}",
                line=line_of("nodes.0.roles", lines),
            )


def _bad_peers(nodes: tuple[NodeConfig, ...], lines: Mapping[str, int]) -> Iterator[Problem]:
    known = {node.id: node for node in nodes}
    for index, node in enumerate(nodes):
        for peer, addresses in node.peers.items():
            line = line_of(f"nodes.{index}.peers.{peer}", lines)
            ids = ", ".join(str(other) for other in known if other != node.id) or "none"
            if peer not in known or peer == node.id:
                yield Problem(key=f"peers.{peer}", wrong="no such peer", right=f"the peers are {ids}", line=line)
            elif addresses.quorum and not (node.is_voter and known[peer].is_voter):
                yield Problem(
                    key=f"peers.{peer}.quorum",
                    wrong="only controllers talk to each other in the quorum",
                    right="leave it out, or give both nodes the role controller",
                    line=line,
                )


def _two_secrets(parsed: ClusterFile, lines: Mapping[str, int]) -> Iterator[Problem]:
    if parsed.secret and parsed.secret_file:
        line = line_of("secret_file", lines)
        yield Problem(key="secret_file", wrong="there is also a secret", right="keep one of the two", line=line)


def needs_written_identity(parsed: ClusterFile) -> list[str]:
    """Keys that nodes on several machines cannot generate separately."""
    if all(is_loopback(node.host) for node in parsed.nodes):
        return []
    missing = [] if parsed.cluster_id else ["cluster_id"]
    return missing if parsed.secret or parsed.secret_file else [*missing, "secret or secret_file"]
