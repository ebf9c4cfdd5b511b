"""How a follower copies its leaders' logs."""
