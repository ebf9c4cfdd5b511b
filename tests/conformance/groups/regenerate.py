"""Ask Kafka's own assignors, and write down what they say.

    python -m tests.conformance.groups.regenerate '/path/to/kafka/libs/*'

The class path is that of Kafka's own jars; `javac` and `java` have to be there.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.conformance.groups.cases import GOLDEN, make_cases

SOURCE = Path(__file__).parent / "Assign.java"


def main(class_path: str) -> None:
    GOLDEN.mkdir(exist_ok=True)
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
