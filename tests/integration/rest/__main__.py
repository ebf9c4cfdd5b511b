"""`python -m tests.integration.rest URL [URL ...]`: asks these nodes of one new cluster every row, a line each.

The rows call the cluster `cluster.test`, which its `rest.allowed.hosts` has to name.
"""

from __future__ import annotations

import sys

from tests.integration.rest.asking import all_rows, report

if __name__ == "__main__":
    sys.exit(min(report(sys.argv[1:], all_rows(sys.argv[1]), print), 1))
