"""What a seed of the profile "decay" draws (see `decay`)."""

PROFILE = "decay"
EVENTS = (
    *("quorum_rot",) * 3,
    *("wipe_file",) * 3,
    *("wipe_voter", "wipe_voter", "wipe_all", "wipe_all", "wipe_helper", "wipe_helper"),
    *("kill", "kill_controller", "kill_leader", "power_loss", "blackout", "restart", "pause", "isolate", "split"),
    *("create_topic", "set_min_isr", "reassign"),
)
