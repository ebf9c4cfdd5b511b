"""Write the golden segments with our code and what Apache Kafka's DumpLogSegments says about them.

    python -m tests.conformance.storage.regenerate '/path/to/kafka/libs/*'

The class path is that of Kafka's own jars. The inputs come from `inputs.py`, so that the tests rebuild the same bytes.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys

from tests.conformance.storage.inputs import GOLDEN, write_logs, write_sent_batches

TOOL = "org.apache.kafka.tools.DumpLogSegments"  # before Kafka 4.2: kafka.tools


def main(class_path: str) -> None:
    shutil.rmtree(GOLDEN / "ours", ignore_errors=True)
    GOLDEN.mkdir(exist_ok=True)
    write_sent_batches()
    asyncio.run(write_logs(GOLDEN / "ours"))
    for folder in sorted((GOLDEN / "ours").iterdir()):
        files = sorted(path for path in folder.iterdir() if path.suffix in {".log", ".index", ".timeindex"})
        arguments = ["--deep-iteration", "--print-data-log", "--files", ",".join(str(path) for path in files)]
        text = _tool(class_path, arguments)
        indexes = [str(path) for path in files if path.suffix == ".index"]
        text += _tool(class_path, ["--index-sanity-check", "--files", ",".join(indexes)])
        text += _tool(class_path, ["--files", ",".join(str(path) for path in sorted(folder.glob("*.snapshot")))])
        (folder / "kafka-dump.txt").write_text(text.replace(f"{folder}/", ""))


def _tool(class_path: str, arguments: list[str]) -> str:
    command = ["java", "-Xmx256m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", class_path, TOOL]
    result = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True, timeout=120)
    return result.stdout


if __name__ == "__main__":
    main(sys.argv[1])
