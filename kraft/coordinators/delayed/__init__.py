"""Records that are delivered at a time: they wait in a topic for them, and its leaders forward them (an addition)."""
