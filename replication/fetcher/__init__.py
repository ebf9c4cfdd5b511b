"""The fetch loops by which a follower copies its leaders' logs."""
