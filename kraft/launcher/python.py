"""How we start Python: each process of ours, and whatever folder we are started in.

`python -m` puts the current folder first on the path of modules: a `secrets.py` there would be run in place of the
standard library's, a `metadata.py` in place of ours. `-P` leaves it out. Not `-I`, which would also ignore PYTHONPATH,
by which people add modules on purpose.
"""

from __future__ import annotations

import sys
from typing import Final

PYTHON: Final = (sys.executable, "-P")
