"""Consumer groups: membership, offsets, and the consumers of REST clients."""
