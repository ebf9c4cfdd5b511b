"""`kraft node --config FILE --id N`: this process becomes the node."""

from __future__ import annotations

import sys

from kraft.config.checks import LOOPBACK_HOSTS, needs_written_identity
from kraft.config.parse import parse_config
from kraft.config.problems import ConfigError, Problem
from kraft.launcher.configuration import load_config, read_text

USAGE = 2
FAILED = 1


def run_in_foreground(path: str, *, node_id: int, data: str | None, parent_pid: int | None) -> int:
    """The node's exit code."""
    if parent_pid is not None:
        from kraft.launcher.lifeline import end_with

        end_with(parent_pid)
    try:
        config = load_config(path, data=data)
        config.node(node_id)
        if any(node.host not in LOOPBACK_HOSTS for node in config.nodes):
            _refuse_separate_identities(path)
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        return FAILED
    except LookupError as error:
        sys.stderr.write(f"error: {path}: {error.args[0]}\n")
        return FAILED
    from kraft.node import run_node

    return run_node(config, node_id, data=config.data)


def _refuse_separate_identities(path: str) -> None:
    """Nodes on several machines would each make up a cluster of their own."""
    missing = needs_written_identity(parse_config(read_text(path), file=path))
    if missing:
        wrong = "missing, and the nodes are on several hosts"
        right = "all nodes of a cluster must be given the same"
        raise ConfigError(path, [Problem(key=key, wrong=wrong, right=right) for key in missing])
