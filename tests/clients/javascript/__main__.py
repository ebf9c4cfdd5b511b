"""kafkajs against three nodes.

    python -m tests.clients.javascript [--bootstrap HOST:PORT,...] [--cache FOLDER]

Needs Node.js and npm; the version stands in package.json. The program administers a topic, writes records, reads them
as a group, and compares every record.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from tests.clients.scripts import Steps, cluster, end, parser, run_program

HERE = Path(__file__).parent
INSTALL_S = 600


def main() -> None:
    asked = parser(__doc__).parse_args()
    modules = asked.cache / "javascript"
    modules.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "package.json", modules)
    run_program(["npm", "install", "--no-audit", "--no-fund"], folder=modules, timeout_s=INSTALL_S)
    steps = Steps("JavaScript")

    def kafkajs() -> None:
        arguments = ["node", HERE / "main.js", bootstrap, f"kafkajs-{uuid.uuid4().hex[:8]}"]
        output = run_program(arguments, environment={**os.environ, "MODULES": str(modules)})
        assert "ok 2000 records" in output, output

    with cluster(asked.bootstrap) as bootstrap:
        steps.run(kafkajs)
    end(steps.verdict())


if __name__ == "__main__":
    main()
