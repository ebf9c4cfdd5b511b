"""`python -P -m kraft.launcher.fork_process node`: the fork server, from its first import on."""

from __future__ import annotations

import signal
import sys

from kraft.launcher.fork_start import NEW_CLUSTERS
from kraft.launcher.identity import IdentityAhead
from kraft.launcher.partial_imports import loading_a_node

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for our owner, and we end with it
    ahead = IdentityAhead() if NEW_CLUSTERS in sys.argv else None
    with loading_a_node():
        from kraft.launcher.fork_server import main
    sys.exit(main(ahead))
