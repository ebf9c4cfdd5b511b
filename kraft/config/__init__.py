"""cluster.toml: parsed once into frozen models, every problem of a file reported at once."""

from kraft.config.models import Address, ClusterConfig, ClusterFile, NodeConfig, PeerAddresses, Purpose, Role
from kraft.config.parse import parse_config
from kraft.config.problems import ConfigError, Problem

__all__ = [
    "Address",
    "ClusterConfig",
    "ClusterFile",
    "ConfigError",
    "NodeConfig",
    "PeerAddresses",
    "Problem",
    "Purpose",
    "Role",
    "parse_config",
]
