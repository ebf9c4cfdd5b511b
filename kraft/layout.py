"""Names that a node's data folder is laid out by, for the node that writes there and for tools that read its files."""

from __future__ import annotations

from typing import Final

METADATA_FOLDER: Final = "__cluster_metadata"
WITNESS_VARIABLE: Final = "KRAFT_SCENARIO_WITNESS"
"""Of a node's environment: names the folder where its disk keeps a witness of what is durable; unset in production."""
