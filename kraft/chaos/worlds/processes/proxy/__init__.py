"""TCP proxies on the links between nodes and from clients to nodes, in one process of their own.

A process of their own, because a hop then never waits for clients that record or a checker that counts: measured on
two busy cores, a round trip costs 0.1 ms more through it. It also ends all nodes when the runner dies, paused ones too.
"""
