"""What was done at a console becomes a story that loads again, and a test of the same story."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kraft.chaos.model import SOME, Producer, Transactor
from kraft.chaos.nemesis.fuzz.story import Step, steps_of
from kraft.chaos.scenario_loader import load
from kraft.config.problems import ConfigError
from kraft.testing.console.acts import DONE_MAX, Done, Journal
from kraft.testing.console.story import left_out_of, pytest_text, scenario_of, story_text

ROLES = dict.fromkeys((1, 2, 3), ("broker", "controller"))
DONE = (
    Done(do="begin", client="w1"),
    Done(do="cut", nodes=(1, 2), one_way=True, after_ms=500),
    Done(do="slow", nodes=(2, 3), ms=200, after_ms=900),
    Done(do="kill", nodes=(3,), after_ms=1_500),
    Done(do="pause", nodes=(2,), after_ms=1_600),
    Done(do="fill_disk", nodes=(1,), after_ms=1_700),
    Done(do="heal", after_ms=60_000),
    Done(do="end", client="w1", after_ms=60_100),
)

PRODUCER = Producer(name="w1", topic="orders", rate=50, limit=200_000)


def made(seen: dict[str, int] | None = None, producer: Producer | Transactor = PRODUCER) -> Any:
    return scenario_of(
        DONE,
        roles=ROLES,
        topics={"orders": [[1, 2, 3], [2, 3, 1]], "other": [[1]]},
        producers=[producer],
        seen=seen or {},
    )


def summary(step: Step) -> tuple[int, str]:
    return step.after_ms, step.action.do


def test_each_act_is_a_step_and_a_heal_brings_nodes_back() -> None:
    assert [summary(step) for step in steps_of(made())] == [
        (0, "start"),
        (500, "cut"),
        (400, "delay"),
        (0, "delay"),
        (600, "kill"),
        (100, "pause"),
        (100, "disk_full"),
        (10_000, "heal"),
        (0, "disk_free"),
        (0, "resume"),
        (0, "restart"),
        (100, "finish"),
    ]


def test_a_saved_story_loads_again_as_it_was(tmp_path: Path) -> None:
    for name, text in (("a.py", story_text(made({"lost": 3}))), ("test_b.py", pytest_text(made({"lost": 3})))):
        file = tmp_path / name
        file.write_text(text)
        scenario = load(str(file))
        assert [topic.name for topic in scenario.topics] == ["orders"]
        assert scenario.topics[0].assignment == ((1, 2, 3), (2, 3, 1))
        assert scenario.clients[0].rate == 50  # type: ignore[union-attr]
        assert (scenario.expect.lost, scenario.expect.duplicated) == (SOME, 0)
        assert scenario.source.count("await run.") == 19


def test_the_list_of_acts_has_a_limit() -> None:
    journal = Journal(now_ms=lambda: 7)
    for _ in range(DONE_MAX):
        journal.add(do="heal")
    with pytest.raises(ValueError, match="clear the list"):
        journal.add(do="heal")
    journal.clear()
    assert journal.add(do="kill", nodes=(1,)) == Done(do="kill", nodes=(1,), after_ms=0)


@pytest.mark.parametrize(
    ("done", "text"),
    [
        (Done(do="cut", nodes=(1,)), "node 1 was cut off from all others"),
        (Done(do="cut", nodes=(1, 2), one_way=True), "the link 1 -> 2 was cut"),
        (Done(do="slow", nodes=(1, 2), ms=50), "the link 1 - 2 is 50 ms slower"),
        (Done(do="fill_disk", nodes=(3,)), "fill disk: node 3"),
        (Done(do="begin", client="w1"), "workload w1 began"),
        (
            Done(do="answer", api="Produce", error="NOT_LEADER_OR_FOLLOWER", topic="orders", nodes=(2,), times=3),
            "Produce is answered with NOT_LEADER_OR_FOLLOWER for orders at node 2, 3 times",
        ),
        (Done(do="delay", api="Fetch", ms=50), "answers to Fetch are 50 ms later, until healed"),
        (Done(do="drop_answer", api="EndTxn", times=1), "answers to EndTxn are lost, 1 times"),
    ],
)
def test_acts_are_reported_in_words(done: Done, text: str) -> None:
    assert done.text == text


def test_a_transactional_workload_is_saved_too(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text(story_text(made(producer=Transactor(name="w1", topic="orders", rate=5, limit=9))))
    (client,) = load(str(file)).clients
    assert isinstance(client, Transactor)
    assert (client.rate, client.limit, client.starts) == (5, None, "in the story")


WRONG = (
    Done(do="answer", api="Produce", error="NOT_CONTROLLER", times=2, after_ms=300),
    Done(do="delay", api="Produce", topic="orders", nodes=(2,), ms=50, after_ms=400),
    Done(do="drop_answer", api="InitProducerId", times=1, after_ms=500),
    Done(do="close_after", api="Produce", topic="nowhere", times=1, after_ms=600),
)


def test_wrong_answers_are_steps_of_a_story_of_kafka_clients(tmp_path: Path) -> None:
    done, topics = (DONE[0], *WRONG, *DONE[-2:]), {"orders": [[1, 2, 3]]}
    left_out = left_out_of(done, protocol="kafka", topics=topics)
    assert left_out == [WRONG[-1]]
    scenario = scenario_of(done, roles=ROLES, topics=topics, producers=[PRODUCER], seen={}, protocol="kafka")
    text = story_text(scenario, protocol="kafka", left_out=left_out)
    assert "kraft scenario run from-the-console.py --client kafka" in text
    assert "# Left out, because it concerns no client here: connections end after an answer to Produce" in text
    assert [line.strip() for line in text.splitlines() if "run.sleep" not in line and "await" in line] == [
        "await run.start('w1')",
        "await run.answer('Produce', error='NOT_CONTROLLER', times=2)",
        "await run.delay_answer('Produce', delay_ms=50, times=0, topic='orders', node=2)",
        "await run.drop_answer('InitProducerId')",
        "await run.heal()",
        "await run.finish('w1')",
    ]
    file = tmp_path / "test_a.py"
    file.write_text(pytest_text(scenario, protocol="kafka"))
    assert "clients='kafka'" in file.read_text()
    assert load(str(file)).source.count("await run.") == 11


def test_a_story_of_rest_clients_leaves_wrong_answers_out() -> None:
    assert left_out_of((*DONE, *WRONG), protocol="rest", topics={"orders": []}) == [*WRONG]
    done = (DONE[0], WRONG[0], *DONE[-2:])
    scenario = scenario_of(done, roles=ROLES, topics={"orders": [[1]]}, producers=[PRODUCER], seen={})
    assert [step.action.do for step in steps_of(scenario)] == ["start", "heal", "finish"]


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        ('answer("Produse", error="NOT_CONTROLLER")', "Kafka has no API 'Produse'"),
        ('answer("Produce", error="NOT_A_CONTROLLER")', "Kafka has no error 'NOT_A_CONTROLLER'"),
        ('delay_answer("Produce", delay_ms=0)', "delay_answer of nothing"),
        ('drop_answer("Produce", topic="nowhere")', "there is no topic nowhere"),
    ],
)
def test_a_wrong_answer_that_cannot_be_is_found_before_the_start(tmp_path: Path, step: str, problem: str) -> None:
    file = tmp_path / "a.py"
    file.write_text(story_text(made()).replace("await run.kill(3)", f"await run.{step}"))
    with pytest.raises(ConfigError, match=problem):
        load(str(file))
