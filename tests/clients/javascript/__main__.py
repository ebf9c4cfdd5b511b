"""kafkajs and @confluentinc/kafka-javascript against three nodes.

    python -m tests.clients.javascript [--bootstrap HOST:PORT,...] [--cache FOLDER]

Needs Node.js, npm, a C++ compiler and make; the version of kafkajs stands in package.json. The programs administer a
topic, write records, read them as groups, and compare every record. Confluent's package finds no binary for every
machine: it is built with the librdkafka whose source it brings, without what other libraries would be needed for.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from tests.clients.scripts import Steps, cluster, end, parser, run_program

HERE = Path(__file__).parent
CONFLUENT = "@confluentinc/kafka-javascript@1.10.1"
INSTALL_S = 600
NPM = ("npm", "install", "--no-audit", "--no-fund")


def main() -> None:
    asked = parser(__doc__).parse_args()
    modules = asked.cache / "javascript"
    modules.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "package.json", modules)
    run_program(NPM, folder=modules, timeout_s=INSTALL_S)
    steps = Steps("JavaScript")

    def kafkajs() -> None:
        output = run("kafkajs.js", f"kafkajs-{uuid.uuid4().hex[:8]}", modules)
        assert "ok 2000 records" in output, output

    def confluent() -> None:
        output = run(
            "confluent.js", f"ckjs-{uuid.uuid4().hex[:8]}", fetch_confluent(asked.cache / "confluent-javascript")
        )
        assert "ok 4000 records" in output, output

    def run(program: str, topic: str, folder: Path) -> str:
        return run_program(
            ["node", HERE / program, bootstrap, topic], environment={**os.environ, "MODULES": str(folder)}
        )

    with cluster(asked.bootstrap) as bootstrap:
        steps.run(kafkajs)
        steps.run(confluent)
    end(steps.verdict())


def fetch_confluent(folder: Path) -> Path:
    """The folder that has it in node_modules."""
    built, library = folder / "built", folder / "librdkafka"
    if (built / "node_modules").exists():
        return built
    folder.mkdir(parents=True, exist_ok=True)
    if not (library / "include").exists():
        build_librdkafka(folder, library)
    fresh = folder / "new"
    fresh.mkdir(exist_ok=True)
    environment = {
        **os.environ,
        "BUILD_LIBRDKAFKA": "0",
        "CPATH": f"{library / 'include'}:{library / 'include' / 'librdkafka'}",
        "LIBRARY_PATH": str(library / "lib"),
        "LDFLAGS": f"-L{library / 'lib'} -Wl,-rpath,{library / 'lib'}",
    }
    run_program(["npm", "init", "-y"], folder=fresh)
    run_program([*NPM, CONFLUENT], folder=fresh, environment=environment, timeout_s=INSTALL_S)
    return fresh.rename(built)


def build_librdkafka(folder: Path, library: Path) -> None:
    run_program(["npm", "pack", CONFLUENT], folder=folder, timeout_s=INSTALL_S)
    run_program(["tar", "xzf", next(folder.glob("*.tgz"))], folder=folder)
    source = folder / "package" / "deps" / "librdkafka"
    without = [f"--disable-{each}" for each in ("curl", "gssapi", "zstd", "lz4-ext")]
    run_program(["./configure", f"--prefix={library}", *without], folder=source, timeout_s=INSTALL_S)
    run_program(["make", "-j2", "libs"], folder=source, timeout_s=INSTALL_S)
    for part in ("src", "src-cpp"):
        run_program(["make", "-C", part, "install"], folder=source, timeout_s=INSTALL_S)


if __name__ == "__main__":
    main()
