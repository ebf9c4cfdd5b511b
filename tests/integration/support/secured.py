"""Three nodes with TLS, and certificates of a CA of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kraft.config.parse import parse_config
from kraft.launcher.certificates import create
from tests.integration.support.cluster import Cluster
from tests.integration.support.configuration import REPLICATED, THREE, write_config
from tests.integration.support.forks import FORKS
from tests.support.ports import own_host

MAPPING = "RULE:^CN=(.*?)$/$1/"


def secured_cluster(
    folder: Path, *, protocol: str, settings: Mapping[str, Any] | None = None, tail: str = ""
) -> Iterator[Cluster]:
    """A cluster whose ports have this protocol. The folder has `certs`, with those of the user alice. `tail` is added
    to cluster.toml."""
    host, certs = own_host(), folder / "certs"
    nodes = "".join(f'[[nodes]]\nid = {node}\nhost = "{host}"\n' for node in THREE)
    create(parse_config(nodes), str(certs), days=10, users=["alice"])
    path = write_config(
        folder / "cluster.toml",
        host=host,
        settings={
            **REPLICATED,
            "ssl.truststore.location": str(certs / "ca.pem"),
            "ssl.client.auth": "requested",
            "ssl.principal.mapping.rules": MAPPING,
            **(settings or {}),
        },
        node_settings={node: {"ssl.keystore.location": str(certs / f"node-{node}.pem")} for node in THREE},
        keys={"kafka_protocol": protocol, "rest_protocol": protocol},
    )
    with open(path, "a", encoding="utf-8") as file:
        file.write(tail)
    cluster = Cluster(data=str(folder / "data"), config=path, forks=FORKS)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.destroy()
