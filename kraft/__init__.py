"""A running node and everything a person touches: configuration, broker, HTTP, wire protocol, command line."""

__version__ = "0.1.0"
