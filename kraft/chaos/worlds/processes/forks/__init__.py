"""Nodes as forks of one process that has loaded everything before.

Loading Python's modules is most of what the start of a node costs: a second of processor time for each. The runner of
scenarios pays it once. What runs after the fork is what `kraft node` runs.
"""
