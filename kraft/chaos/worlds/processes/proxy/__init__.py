"""TCP proxies on the links between nodes and from clients to nodes, in one process of their own.

They have a separate process, so that a hop never waits for clients or a checker of the runner: on two busy cores, a
round trip takes 0.1 ms more through it. It also kills all nodes when the runner dies, paused ones too.
"""
