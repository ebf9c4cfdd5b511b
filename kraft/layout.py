"""Names in a node's data folder, for the node that writes there and for tools that read its files."""

from __future__ import annotations

from typing import Final

METADATA_FOLDER: Final = "__cluster_metadata"
WITNESS_VARIABLE: Final = "KRAFT_SCENARIO_WITNESS"
"""A variable of a node's environment: the folder where its disk keeps a witness of durable data; unset in
production."""
OPERATOR_FILE: Final = "operator.key"
"""Beside the secret, where clients log in: the key of the command line's tokens."""
SECRET_FILE: Final = "cluster.secret"
"""In the cluster's data folder: the secret of its nodes, readable by the owner only."""
