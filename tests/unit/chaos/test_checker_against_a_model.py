"""Random valid runs of a tiny model log give no anomaly; one random change to what was found afterwards is found."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from kraft.chaos.checkers.verdict import Verdict
from kraft.chaos.evidence import ReadBack
from tests.unit.chaos.recorded_run import Run

SEEDS = range(60)


def valid_run(rng: random.Random) -> tuple[Run, list[str]]:
    """Producers and readers of one partition with one leader: answers may be lost, writes refused, nothing else."""
    run = Run()
    log: list[str] = []
    counters = dict.fromkeys(("p", "q"), 0)
    positions = dict.fromkeys(("r", "s"), 0)
    now = 1.0
    for _ in range(rng.randrange(20, 60)):
        now += 0.1
        if rng.random() < 0.3:
            reader = rng.choice(list(positions))
            end = rng.randint(positions[reader], len(log))
            start = rng.randint(0, positions[reader])
            run.read(start, log[start:end], at_s=now, process=reader, high_watermark=len(log))
            positions[reader] = max(end, start)
            continue
        producer = rng.choice(list(counters))
        sent = [f"{producer}:{counters[producer] + number}" for number in range(rng.randint(1, 4))]
        counters[producer] += len(sent)
        match rng.randrange(6):
            case 0:
                run.sent(*sent, at_s=now, process=producer, outcome="fail", kafka_code=19)
            case 1:
                if rng.random() < 0.5:
                    log += sent
                run.sent(*sent, at_s=now, process=producer, outcome="info", kafka_code=7)
            case _:
                acks = rng.choice(("0", "1", "all"))
                offset = None if acks == "0" else len(log)
                run.sent(*sent, at_s=now, process=producer, acks=acks, offset=offset)
                log += sent
    run.sent("p:1000", at_s=now + 1, process="p", offset=len(log))
    return run, [*log, "p:1000"]


def give_evidence(run: Run, log: list[str], copies: list[list[str]] | None = None) -> None:
    run.ends_with(*log)
    for node, copy in enumerate(copies or [log, log, log], 1):
        run.copy(node, *copy)


def acknowledged(run: Run) -> set[str]:
    return {
        value for sent in run.operations if hasattr(sent, "acks") and sent.outcome == "ok" for _, value in sent.records
    }


def drop(rng: random.Random, run: Run, log: list[str]) -> list[str]:
    at = rng.choice([number for number, value in enumerate(log) if value in acknowledged(run)])
    return log[:at] + log[at + 1 :]


def duplicate(rng: random.Random, run: Run, log: list[str]) -> list[str]:
    at = rng.randrange(len(log))
    return [*log, log[at]]


def swap(rng: random.Random, run: Run, log: list[str]) -> list[str]:
    first, second = sorted(rng.sample(range(len(log)), 2))
    swapped = list(log)
    swapped[first], swapped[second] = log[second], log[first]
    return swapped


def change(rng: random.Random, run: Run, log: list[str]) -> list[str]:
    at = rng.randrange(len(log))
    return [*log[:at], "p:999999", *log[at + 1 :]]


MUTATIONS: tuple[Callable[[random.Random, Run, list[str]], list[str]], ...] = (drop, duplicate, swap, change)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_valid_run_is_clean(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    run, log = valid_run(rng)
    give_evidence(run, log)
    verdict = run.verdict(tmp_path)
    assert verdict.is_clean, verdict.to_json().decode()
    assert verdict.counts.lost == verdict.counts.phantom == verdict.counts.duplicated == 0
    assert verdict.counts.kept == len(acknowledged(run))
    assert verdict.counts.kept + verdict.counts.unknown_kept == len(log)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_valid_run_is_clean_by_its_reads_alone(tmp_path: Path, seed: int) -> None:
    run, log = valid_run(random.Random(seed))
    run.read(0, log, at_s=100, process="last")
    verdict = run.verdict(tmp_path)
    assert verdict.is_clean, verdict.to_json().decode()
    assert (verdict.counts.kept, verdict.counts.unread) == (len(acknowledged(run)), 0)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: each.__name__)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_change_of_the_log_is_found(
    tmp_path: Path, mutation: Callable[[random.Random, Run, list[str]], list[str]], seed: int
) -> None:
    rng = random.Random(seed)
    run, log = valid_run(rng)
    changed = mutation(rng, run, log)
    give_evidence(run, changed)
    verdict = run.verdict(tmp_path)
    assert not verdict.is_clean, verdict.to_json().decode()
    assert found_as_it_is(mutation.__name__, verdict), verdict.to_json().decode()


def found_as_it_is(mutation: str, verdict: Verdict) -> bool:
    match mutation:
        case "drop":
            return verdict.counts.lost == 1
        case "duplicate":
            return verdict.counts.duplicated == 1 and bool(verdict.duplicates)
        case "swap":
            return bool(verdict.anomalies) or verdict.counts.reordered > 0
        case _:
            return "never_sent" in verdict.kinds()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_change_of_one_replica_is_found(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    run, log = valid_run(rng)
    changed = rng.choice((drop, swap, change))(rng, run, log)
    give_evidence(run, log, copies=[log, changed, log])
    assert run.verdict(tmp_path).kinds() == {"replicas_differ"}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_change_of_what_one_reader_saw_is_found(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    run, log = valid_run(rng)
    changed = rng.choice((swap, change))(rng, run, log)
    run.read(0, changed, at_s=50, process="liar")
    give_evidence(run, log)
    assert "offset_two_values" in run.verdict(tmp_path).kinds()


def test_log_with_later_start_is_not_clean(tmp_path: Path) -> None:
    run, log = valid_run(random.Random(1))
    give_evidence(run, log)
    whole: ReadBack = run.readback[0]
    run.readback.clear()
    run.ends_with(*log[3:], start=3)
    assert whole.high_watermark == run.readback[0].high_watermark
    assert not run.verdict(tmp_path).is_clean
