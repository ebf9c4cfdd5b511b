"""What this node asks other nodes, as the protocols that the rest of it declares; each is a few RPCs over `Peers`.

Purposes keep slow and fast apart (KIP-291 in small): `controller` for requests about the cluster, whose end shows
the controller that a broker died; `fetch` for a follower's long polls; `forward` for data requests of clients.
"""
