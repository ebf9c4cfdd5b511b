"""What was done at a console, as a story for `kraft scenario run` and as a test for pytest. Pure.

Both run the same story on a cluster of its own, and judge it in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kraft.chaos.model import ANY, SOME, Client, ClusterPlan, Expect, Producer, Scenario, Topic, Transactor
from kraft.chaos.nemesis.actions import (
    Action,
    FinishClients,
    Heal,
    Isolate,
    LinkFault,
    NodeFault,
    RequestFault,
    StartClients,
)
from kraft.chaos.nemesis.fuzz.render import render_scenario
from kraft.chaos.nemesis.fuzz.story import Script, Step
from kraft.chaos.workload.client import ClientProtocol
from kraft.testing.console.acts import ANSWER_ACTS, Done

PAUSE_MS_MAX = 10_000
"""What was waited for longer is waited for so long."""
NAME = "from-the-console"
COUNTS = ("lost", "duplicated", "reordered", "phantom")
_TEST = """

def test_from_the_console() -> None:
    from kraft.chaos.live import NobodyWatches
    from kraft.chaos.worlds.processes.run import run_scenario

    run = run_scenario(from_the_console, seed=0, watcher=NobodyWatches(), clients={clients!r})
    result = asyncio.run(run)
    assert result.outcome == "as expected", "\\n".join(result.problems)
"""


def scenario_of(
    done: Sequence[Done],
    *,
    roles: Mapping[int, Sequence[str]],
    topics: Mapping[str, Sequence[Sequence[int]]],
    producers: Sequence[Producer | Transactor],
    seen: Mapping[str, int],
    protocol: ClientProtocol = "rest",
) -> Scenario:
    """`topics`: replicas of each partition, by topic. `producers`: the plans of the workloads, which speak `protocol`.
    `seen`: what the verdict of the console has counted; a kind of loss that it has not seen is not expected."""
    left_out = {*left_out_of(done, protocol=protocol, topics=topics)}
    clients: list[Client] = [plan.model_copy(update={"starts": "in the story", "limit": None}) for plan in producers]
    used = {plan.topic for plan in producers} or {*topics}
    used |= {each.topic for each in done if each.topic}
    expect: dict[str, Any] = {name: SOME if seen.get(name) else 0 for name in COUNTS}
    return Scenario(
        name=NAME,
        sentence="What was done by hand at the console",
        question="Is every acknowledged record there when this happens?",
        cluster=ClusterPlan(
            brokers=tuple(node for node, each in roles.items() if "broker" in each),
            controllers=tuple(node for node, each in roles.items() if "controller" in each),
        ),
        topics=tuple(
            Topic(name=name, assignment=tuple(map(tuple, assignment)))
            for name, assignment in sorted(topics.items())
            if name in used
        ),
        clients=tuple(clients),
        expect=Expect(kept=SOME if clients else ANY, **expect),
        story=Script(tuple(_steps([each for each in done if each not in left_out]))),
    )


def left_out_of(
    done: Sequence[Done], *, protocol: ClientProtocol, topics: Mapping[str, Sequence[Sequence[int]]]
) -> list[Done]:
    """Wrong answers that no client of the story could get: its clients speak REST, or there is no such topic."""
    answers = [each for each in done if each.do in ANSWER_ACTS]
    return [each for each in answers if protocol == "rest" or (each.topic and each.topic not in topics)]


def story_text(scenario: Scenario, *, protocol: ClientProtocol = "rest", left_out: Sequence[Done] = ()) -> str:
    """A file for `kraft scenario run FILE`."""
    options = "" if protocol == "rest" else f" --client {protocol}"
    return render_scenario(scenario, comment=_comment(f"kraft scenario run {NAME}.py{options}", left_out))


def pytest_text(scenario: Scenario, *, protocol: ClientProtocol = "rest", left_out: Sequence[Done] = ()) -> str:
    """A file for `pytest FILE`."""
    story = render_scenario(scenario, comment=_comment(f"pytest test_{NAME}.py", left_out))
    story = story.replace("from kraft.chaos.checkers", "import asyncio\n\nfrom kraft.chaos.checkers", 1)
    return story + _TEST.format(clients=protocol)


def _comment(command: str, left_out: Sequence[Done]) -> str:
    lines = [f"Saved from the console of kraft. Run it again: {command}"]
    return "\n".join([*lines, *(f"Left out, because it concerns no client here: {each.text}" for each in left_out)])


def _steps(done: Sequence[Done]) -> Iterator[Step]:
    """The acts with their pauses. A heal of the console also brings back nodes: a step of its own in a story."""
    before_ms, states = 0, dict[int, str]()
    for each in done:
        wait_ms = min(each.after_ms - before_ms, PAUSE_MS_MAX)
        before_ms = each.after_ms
        for action in _actions(each, states):
            yield Step(after_ms=max(wait_ms, 0), action=action)
            wait_ms = 0


def _actions(done: Done, states: dict[int, str]) -> Iterator[Action]:
    """`states`: node -> paused, down or full."""
    match done.do:
        case "begin":
            yield StartClients(do="start", clients=(done.client,))
        case "end":
            yield FinishClients(do="finish", clients=(done.client,))
        case "cut" if len(done.nodes) == 1:
            yield Isolate(do="isolate", node=done.nodes[0])
        case "cut" | "slow":
            yield from _on_link(done)
        case do if do in ANSWER_ACTS:
            yield _of_answers(done)
        case "heal":
            yield Heal(do="heal")
            for do, state in (("disk_free", "full"), ("resume", "paused"), ("restart", "down")):
                if nodes := tuple(node for node, found in states.items() if found == state):
                    yield NodeFault(do=do, nodes=nodes)
            states.clear()
        case _:
            do = {"fill_disk": "disk_full", "free_disk": "disk_free"}.get(done.do, done.do)
            yield NodeFault(do=do, nodes=done.nodes)
            _note(done, states)


def _on_link(done: Done) -> Iterator[Action]:
    one, other = done.nodes
    ways = [(one, other)] if done.one_way else [(one, other), (other, one)]
    for dials, answers in ways:
        if done.do == "cut":
            yield LinkFault(do="cut", dials=(dials,), answers=(answers,))
        else:
            yield LinkFault(do="delay", dials=(dials,), answers=(answers,), delay_ms=done.ms)


def _of_answers(done: Done) -> Action:
    do = "delay_answer" if done.do == "delay" else done.do
    node = done.nodes[0] if done.nodes else None
    more: dict[str, Any] = {"error": done.error} if do == "answer" else {}
    more |= {"delay_ms": done.ms} if do == "delay_answer" else {}
    return RequestFault(do=do, api=done.api, times=done.times, topic=done.topic or None, node=node, **more)


def _note(done: Done, states: dict[int, str]) -> None:
    found = {"kill": "down", "stop": "down", "power_loss": "down", "pause": "paused", "fill_disk": "full"}.get(done.do)
    for node in done.nodes:
        states.pop(node, None)
        if found is not None:
            states[node] = found
