"""Benchmarks: `python -m bench` starts a cluster, loads it, checks what it did, and prints a table."""
