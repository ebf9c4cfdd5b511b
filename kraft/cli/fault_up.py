"""`kraft up --faults`: a throwaway cluster whose links, disks and answers can be broken, until Ctrl-C."""

from __future__ import annotations

import time

import typer

from kraft.cli.output import say, write, write_json
from kraft.config.parse import parse_config
from kraft.launcher.configuration import read_config
from kraft.launcher.console import ConsoleOptions, start_console
from kraft.launcher.up import Interrupted, uninterruptible
from kraft.testing.cluster import ClusterFailed
from kraft.testing.faults import FaultCluster

LOOK_S = 1.0


def up_with_faults(
    config: str | None, *, data: str | None, secure: bool, detach: bool, console: ConsoleOptions | None, as_json: bool
) -> None:
    """Nodes, roles and settings of cluster.toml; ports and the data folder are its own."""
    given = {"--data": data, "--secure": secure, "--detach": detach}
    if refused := [name for name, value in given.items() if value]:
        raise typer.BadParameter(
            f"--faults goes without {' and '.join(refused)}: its cluster is thrown away at the end, and its folder is "
            "printed"
        )
    cluster = _cluster(config)
    page = None
    try:
        cluster.start()
        page = start_console(str(cluster.data), options=console) if console else None
        _announce(cluster, None if page is None else page.url, as_json=as_json)
        while cluster.is_running:
            time.sleep(LOOK_S)
    except (Interrupted, BrokenPipeError):
        say("ending all nodes; nothing of this cluster stays")
    except ClusterFailed as error:
        say(f"error: {error}")
        raise typer.Exit(1) from error
    finally:
        uninterruptible()
        if page is not None:
            page.end()
        cluster.close()


def _cluster(config: str | None) -> FaultCluster:
    if config is None:
        return FaultCluster(nodes=3)
    found = parse_config(read_config(config), file=config)
    return FaultCluster(nodes={node.id: node.roles for node in found.nodes}, settings=found.settings)


def _announce(cluster: FaultCluster, url: str | None, *, as_json: bool) -> None:
    if as_json:
        nodes = [{"id": node, "rest": rest} for node, rest in cluster.rest_urls.items()]
        write_json(
            {
                "cluster_id": cluster.cluster_id,
                "nodes": nodes,
                "bootstrap_servers": cluster.bootstrap_servers,
                "data": str(cluster.data),
                "console": url,
            }
        )
        return
    write(f"cluster {cluster.cluster_id} is ready; it is thrown away at the end")
    if url is not None:
        write(f"\nSee it, and break it: {url}\n")
    write(f"export KRAFT_DATA={cluster.data}")
    write(f"export KRAFT_REST={','.join(cluster.rest_urls.values())}")
    write(f"bootstrap.servers={cluster.bootstrap_servers}")
    write("\nThe same by commands: kraft fault kill 1; kraft fault cut 1-2; kraft fault heal")
