"""One node: what it is made of, and the process that runs it."""

from kraft.node.process import run_node

__all__ = ["run_node"]
