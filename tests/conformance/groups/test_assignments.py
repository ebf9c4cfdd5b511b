"""Every assignment is Kafka's, partition for partition."""

from __future__ import annotations

from tests.conformance.groups.cases import GOLDEN, PROTOCOLS, assigned


def test_assignments_are_those_of_kafkas_own_assignors() -> None:
    lines = (GOLDEN / "assignments.txt").read_text().splitlines()
    pairs = list(zip(lines[::2], (line.strip() for line in lines[1::2]), strict=True))
    assert {case.split(" ")[0] for case, _ in pairs} == set(PROTOCOLS)
    wrong = [(case, kafkas, ours) for case, kafkas in pairs if (ours := assigned(case)) != kafkas]
    assert not wrong, wrong[:2]
