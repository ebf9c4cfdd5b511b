"""A fault that only TLS has: nodes of a cluster of `--secure` get certificates that have expired, or good ones again.

Nodes look at the files of their certificates every second, so a node shows another one soon after it is written. This
is also a program, for callers that must not import modules of the configuration: DATA expire|renew NODE...
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Final

from kraft.launcher.certificates import DAYS, CertificateAuthority
from kraft.launcher.configuration import load_config
from kraft.launcher.processes import LaunchError
from kraft.launcher.runfile import CERTIFICATES_FOLDER, RESOLVED_FILE

EXPIRED_DAYS: Final = -1


def write_certificates(data: str, nodes: Iterable[int], *, is_expired: bool) -> None:
    """Replace the certificates of these nodes, by ones that ended yesterday, or by good ones. Raises LaunchError."""
    folder = os.path.join(data, CERTIFICATES_FOLDER)
    if not os.path.isdir(folder):
        raise LaunchError(f"the cluster of {data} has no certificates of its own: start it with --secure")
    config = load_config(os.path.join(data, RESOLVED_FILE), data=data)
    authority = CertificateAuthority(folder, days=EXPIRED_DAYS if is_expired else DAYS)
    for node in nodes:
        authority.node(config.node(node))


if __name__ == "__main__":
    try:
        write_certificates(sys.argv[1], map(int, sys.argv[3:]), is_expired=sys.argv[2] == "expire")
    except (LaunchError, LookupError) as problem:
        sys.exit(str(problem))
