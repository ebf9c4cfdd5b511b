"""Ask Kafka's own assignors, and its dump tool about a segment of ours; write down what they say.

    python -m tests.conformance.groups.regenerate '/path/to/kafka/libs/*'

The class path is that of Kafka's own jars; `javac` and `java` have to be there.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.conformance.groups.cases import GOLDEN, make_cases
from tests.conformance.groups.consumer_groups import CONSUMER_DUMP, CONSUMER_FOLDER, consumer_segment
from tests.conformance.groups.offsets import DUMP, FOLDER, SEGMENT, segment

SOURCE = Path(__file__).parent / "Assign.java"
TOOL = "org.apache.kafka.tools.DumpLogSegments"  # before Kafka 4.2: kafka.tools


def main(class_path: str) -> None:
    GOLDEN.mkdir(exist_ok=True)
    _assign(class_path)
    _dump(class_path)


def _dump(class_path: str) -> None:
    for folder, data, text in (
        (FOLDER, segment(), DUMP),
        (CONSUMER_FOLDER, consumer_segment(), CONSUMER_DUMP),
    ):
        folder.mkdir(exist_ok=True)
        (folder / SEGMENT.name).write_bytes(data)
        text.write_text(_said_of(folder, class_path))


def _said_of(folder: Path, class_path: str) -> str:
    java = ["java", "-Dfile.encoding=UTF-8", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", class_path]
    command = [*java, TOOL, "--offsets-decoder", "--files", str(folder / SEGMENT.name)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.replace(f"{folder}/", "")


def _assign(class_path: str) -> None:
    cases = make_cases()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["javac", "-cp", class_path, "-d", folder, str(SOURCE)], check=True)
        command = ["java", "-Dorg.slf4j.simpleLogger.defaultLogLevel=off", "-cp", f"{class_path}:{folder}", "Assign"]
        asked = subprocess.run(command, input="\n".join(cases) + "\n", capture_output=True, text=True, check=True)
    answers = asked.stdout.splitlines()
    lines = [f"{case}\n  {answer}" for case, answer in zip(cases, answers, strict=True)]
    (GOLDEN / "assignments.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
