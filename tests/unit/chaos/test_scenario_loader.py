"""A person's own story: every mistake is told before anything starts, with its line and what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from kraft.chaos import catalogue, scenario_loader
from kraft.chaos.model import ANY, SCENARIO_SETTINGS, Producer
from kraft.config.problems import ConfigError

GOOD = '''\
from kraft.chaos.model import Expect, Producer, Reader, SOME, Topic
from kraft.chaos.story import ScenarioRun, scenario


@scenario(
    "good",
    question="Does it load?",
    settings={"replica.lag.time.max.ms": 2_000},
    topics=[Topic(name="t", configs={"min.insync.replicas": 2})],
    clients=[Producer(name="p1", topic="t", acks="1", in_flight=2)],
    expect=Expect(lost=SOME),
)
async def good(run: ScenarioRun) -> None:
    """One node dies.

    And comes back.
    """
    await run.more_acked(10)
    old = (await run.now()).leader("t", 0)
    await run.cut(purpose="fetch", dials=[2, 3], answers=old)
    await run.until(lambda now: now.isr("t", 0) == [1] and now.acked("p1") > 5)
    await run.kill(old)
'''


def loaded(tmp_path: Path, text: str) -> object:
    file = tmp_path / "s.py"
    file.write_text(text)
    return scenario_loader.load(str(file))


def problems(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    return str(caught.value).replace(str(tmp_path), "")


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


def test_a_good_file(tmp_path: Path) -> None:
    scenario = scenario_loader.load(str((tmp_path / "s.py").write_text(GOOD) and tmp_path / "s.py"))
    assert (scenario.name, scenario.sentence) == ("good", "One node dies")
    assert scenario.cluster.all_settings == {**SCENARIO_SETTINGS, "replica.lag.time.max.ms": 2_000}
    assert isinstance(scenario.clients[0], Producer)
    assert scenario.expect.reordered == ANY, "nothing orders requests that are in flight together"
    assert scenario.source.startswith("@scenario(")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('acks="1"', 'acks="2"', "s.py:10: acks: '2' is not possible; Producer.acks should be '0', '1' or 'all'."),
        ("in_flight=2", "inflight=2", "s.py:10: inflight: unknown argument; Producer has no inflight."),
        ('topic="t", acks', 'topic="tt", acks', "s.py: client p1: there is no topic tt; did you mean t?"),
        ('"min.insync.replicas": 2', '"min.insync.replica": 2', "min.insync.replica: unknown setting; did you mean"),
        ("2_000}", '"soon"}', "settings: replica.lag.time.max.ms: 'soon' is not possible"),
        ('name="t",', 'name="t", assignment=[[1, 4]],', "topic t: there is no broker 4; the ids are 1, 2, 3."),
        ('now.acked("p1")', 'now.acked("p2")', "s.py:21: there is no client 'p2'; did you mean p1?"),
        ('now.isr("t", 0)', 'now.isrr("t", 0)', "'Now' object has no attribute 'isrr'; did you mean isr? (s.py:21)"),
        (
            "run.kill(old)",
            "run.kill(7)",
            "s.py:22: step 4 (kill nodes 7): there is no node 7; the ids are 1",
        ),
        ("run.kill(old)", "run.kil(old)", "'ScenarioRun' object has no attribute 'kil'; did you mean kill?"),
        ("run.kill(old)", "run.kill(gone)", "NameError: name 'gone' is not defined (s.py:22)"),
        ("run.kill(old)", "run.start('p3')", "there is no client p3; did you mean p1?"),
        ("run.kill(old)", "run.delay(delay_ms=0)", "delay of nothing; give delay_ms or bytes_per_second."),
        ("run.kill(old)", "run.set_topic('t', {'x': 1})", "settings: x: unknown setting"),
        ("run.kill(old)", "run.cut(purpose='fetsh')", "ValidationError"),
        (
            "    await run.kill(old)",
            "    while True:\n        await run.sleep(1)",
            "a story has 1000 steps at most",
        ),
        ("@scenario(", "@scenari(", "s.py:5: NameError: name 'scenari' is not defined; the file has to load."),
        ("async def good", "async deff good", "s.py:13: SyntaxError"),
    ],
)
def test_mistakes(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert expected in problems(tmp_path, changed(old, new))


def test_a_file_has_one_story(tmp_path: Path) -> None:
    assert "0 scenarios in the file: no decorated story" in problems(tmp_path, "x = 1\n")
    twice = GOOD + GOOD.partition("\n\n\n")[2].replace("async def good", "async def other")
    assert "2 scenarios in the file: good, good; a file has one function under @scenario." in problems(tmp_path, twice)


def test_a_toml_file_is_refused_with_the_python_form() -> None:
    with pytest.raises(ConfigError, match=r"scenarios are Python files now; `kraft scenario new mine.py` writes one"):
        scenario_loader.load("old.toml")


def test_unknown_name_suggests_nearest() -> None:
    with pytest.raises(ConfigError, match="acks1-leader-kil: there is no scenario of this name; did you mean acks1"):
        scenario_loader.load("acks1-leader-kil")


def test_the_story_to_start_from_is_a_good_one(tmp_path: Path) -> None:
    loaded(tmp_path, scenario_loader.NEW_STORY)


@pytest.mark.parametrize("name", catalogue.NAMES)
def test_the_stories_of_the_catalogue_pass_the_check(name: str) -> None:
    scenario_loader.check(catalogue.SCENARIOS[name], file=name)


def test_there_are_57_stories_with_a_question_each() -> None:
    assert len(catalogue.NAMES) == 66
    assert all(scenario.question.endswith("?") and scenario.sentence for scenario in catalogue.SCENARIOS.values())
