"""A scenario's file: every mistake is told with its line, its key, what is wrong and what would be right."""

from __future__ import annotations

import pytest

from kraft.config.problems import ConfigError
from kraft.scenarios import catalogue
from kraft.scenarios.actions import LinkFault, NodeFault
from kraft.scenarios.model import SCENARIO_SETTINGS, Producer
from kraft.scenarios.parse import parse_scenario
from kraft.scenarios.render import render_scenario

GOOD = """\
[scenario]
name = "good"
sentence = "One node dies"
question = "Does it parse?"

[cluster.settings]
replica.lag.time.max.ms = 2000

[[topics]]
name = "t"
configs."min.insync.replicas" = 2

[[clients]]
kind = "producer"
name = "p1"
topic = "t"
acks = "1"

[[steps]]
after_acked = 10
remember = { old = "leader of t-0" }
do = "cut"
purpose = "fetch"
dials = [2, 3]
answers = "old"

[[steps]]
when = "isr(t, 0) == [1]"
do = "kill"
node = "old"

[expect]
lost = "> 0"
"""


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_scenario(text, file="s.toml")
    return str(caught.value).splitlines()


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


def test_a_good_one() -> None:
    scenario = parse_scenario(GOOD, file="s.toml")
    assert scenario.cluster.all_settings["replica.lag.time.max.ms"] == 2000
    assert scenario.cluster.all_settings["broker.session.timeout.ms"] == SCENARIO_SETTINGS["broker.session.timeout.ms"]
    assert scenario.topics[0].configs == {"min.insync.replicas": 2}
    assert isinstance(scenario.clients[0], Producer)
    cut, kill = (step.action for step in scenario.steps)
    assert isinstance(cut, LinkFault)
    assert (cut.dials, cut.answers, cut.purpose) == ((2, 3), "old", "fetch")
    assert isinstance(kill, NodeFault)
    assert kill.node == "old"
    assert scenario.expect.ranges()["lost"] == "> 0"


@pytest.mark.parametrize(
    ("old", "new", "line", "telling"),
    [
        ('question = "Does it parse?"', "", 1, "question: missing; it must be there (The question that"),
        ("replica.lag.time.max.ms", "replica.lag.tme.max.ms", 7, "did you mean replica.lag.time.max.ms?"),
        ("max.ms = 2000", "max.ms = -1", 7, "replica.lag.time.max.ms: -1 is not possible"),
        ('configs."min.insync.replicas"', 'configs."min.insync"', 11, "did you mean min.insync.replicas?"),
        ('kind = "producer"', 'kind = "producr"', 14, "there is no kind = 'producr'; did you mean producer?"),
        ('topic = "t"\n', 'topic = "tt"\n', 16, "there is no topic tt; did you mean t?"),
        ('acks = "1"', 'acks = "2"', 17, "'2' is not possible; it should be '0', '1' or 'all'"),
        ('acks = "1"', "retrys = 3", 17, "unknown key; did you mean retries?"),
        ("after_acked = 10", "after_ack = 10", 20, "unknown key; did you mean after_acked?"),
        ('"leader of t-0"', '"leader of x-0"', 21, "there is no topic x"),
        ('do = "cut"', 'do = "cutt"', 22, "there is no do = 'cutt'; did you mean cut?"),
        ('do = "cut"', 'do = "delay"', 22, "delay of nothing; give delay_ms or jitter_ms"),
        ('purpose = "fetch"', 'purpose = "fetsh"', 23, "'fetsh' is not possible"),
        ("dials = [2, 3]", "dials = [2, 7]", 24, "there is no node 7; the ids are 1, 2, 3"),
        ('when = "isr(t, 0) == [1]"', 'when = "isr(u, 0) == [1]"', 28, "there is no topic u"),
        ('when = "isr(t, 0) == [1]"', 'when = "acked(p2) > 1"', 28, "there is no client p2; did you mean p1?"),
        ('node = "old"', 'node = "odl"', 30, "nothing remembered odl before; did you mean old?"),
        ('node = "old"', "", 27, "node: missing; it must be there (One node or several"),
        ('lost = "> 0"', 'lost = "== tail"', 33, "nothing remembered tail before"),
        ('lost = "> 0"', 'gone = "> 0"', 33, "gone: unknown key; did you mean unknown_gone?"),
        ('lost = "> 0"', 'anomalies = ["two_leader"]', 33, "'two_leaders'"),
    ],
)
def test_a_mistake_has_its_line_and_what_is_right(old: str, new: str, line: int, telling: str) -> None:
    told = problems(changed(old, new))
    assert any(problem.startswith(f"s.toml:{line}: ") and telling in problem for problem in told), told


@pytest.mark.parametrize("groups", ['"[1] | [2, 3]"', "[[1], [2, 3]]", '"[1]|[2,3]"'])
def test_groups_are_written_as_people_say_them(groups: str) -> None:
    text = changed('do = "kill"\nnode = "old"', f'do = "partition"\ngroups = {groups}')
    (_, step) = parse_scenario(text, file="s.toml").steps
    assert step.action.groups == ((1,), (2, 3))  # type: ignore[union-attr]


def test_groups_that_are_none_are_told() -> None:
    (told,) = problems(changed('do = "kill"\nnode = "old"', 'do = "partition"\ngroups = "1 / 2, 3"'))
    assert "write groups of nodes, such as [1] | [2, 3]" in told
    (told,) = problems(changed('do = "kill"\nnode = "old"', 'do = "partition"\ngroups = "[1] | [2, 7]"'))
    assert "there is no node 7" in told


def test_all_mistakes_of_a_kind_are_told_at_once() -> None:
    told = problems(changed('acks = "1"', 'acks = "2"').replace('do = "kill"', 'do = "kil"'))
    assert len(told) == 2


def test_what_is_no_toml() -> None:
    assert problems("[scenario")[0].startswith("s.toml:1: this is not TOML")


def test_a_name_must_be_remembered_in_an_earlier_step() -> None:
    assert "nothing remembered old before" in problems(changed('"leader of t-0" }', '"old" }'))[0]


@pytest.mark.parametrize("name", catalogue.NAMES)
def test_the_catalogue_parses_and_survives_being_written_down(name: str) -> None:
    scenario = catalogue.load(name)
    assert scenario.name == name
    assert parse_scenario(render_scenario(scenario, comment="again"), file=name) == scenario


def test_an_unknown_name_of_the_catalogue_gets_a_hint() -> None:
    with pytest.raises(ConfigError, match="did you mean acks1-leader-kill"):
        catalogue.load("acks1-leader-kil")
