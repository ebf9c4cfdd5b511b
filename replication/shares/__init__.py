"""Share groups on the leader's side (KIP-932): which records are handed out to whom, and how often they were."""
