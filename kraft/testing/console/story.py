"""What was done at a console, as a story for `kraft scenario run` and as a test for pytest. Pure.

Both run the same story on a cluster of its own, and judge it in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kraft.chaos.model import ANY, SOME, Client, ClusterPlan, Expect, Producer, Scenario, Topic, Transactor
from kraft.chaos.nemesis.actions import Action, FinishClients, Heal, Isolate, LinkFault, NodeFault, StartClients
from kraft.chaos.nemesis.fuzz.render import render_scenario
from kraft.chaos.nemesis.fuzz.story import Script, Step
from kraft.testing.console.acts import ANSWER_ACTS, Done

PAUSE_MS_MAX = 10_000
"""What was waited for longer is waited for so long."""
NAME = "from-the-console"
COUNTS = ("lost", "duplicated", "reordered", "phantom")
_TEST = """

def test_from_the_console() -> None:
    from kraft.chaos.live import NobodyWatches
    from kraft.chaos.worlds.processes.run import run_scenario

    result = asyncio.run(run_scenario(from_the_console, seed=0, watcher=NobodyWatches()))
    assert result.outcome == "as expected", "\\n".join(result.problems)
"""


def scenario_of(
    done: Sequence[Done],
    *,
    roles: Mapping[int, Sequence[str]],
    topics: Mapping[str, Sequence[Sequence[int]]],
    producers: Sequence[Producer | Transactor],
    seen: Mapping[str, int],
) -> Scenario:
    """`topics`: replicas of each partition, by topic. `producers`: the plans of the workloads. `seen`: what the
    verdict of the console has counted; a kind of loss that it has not seen is not expected."""
    clients: list[Client] = [plan.model_copy(update={"starts": "in the story", "limit": None}) for plan in producers]
    used = {plan.topic for plan in producers} or {*topics}
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
        story=Script(tuple(_steps(done))),
    )


def left_out_of(done: Sequence[Done]) -> list[str]:
    """What was done and has no step in a story, in words."""
    return [each.text for each in done if each.do in ANSWER_ACTS]


def story_text(scenario: Scenario, *, left_out: Sequence[str] = ()) -> str:
    """A file for `kraft scenario run FILE`."""
    return render_scenario(scenario, comment=_comment(f"kraft scenario run {NAME}.py", left_out))


def pytest_text(scenario: Scenario, *, left_out: Sequence[str] = ()) -> str:
    """A file for `pytest FILE`."""
    story = render_scenario(scenario, comment=_comment(f"pytest test_{NAME}.py", left_out))
    return story.replace("from kraft.chaos.checkers", "import asyncio\n\nfrom kraft.chaos.checkers", 1) + _TEST


def _comment(command: str, left_out: Sequence[str]) -> str:
    lines = [f"Saved from the console of kraft. Run it again: {command}"]
    return "\n".join([*lines, *(f"Left out, because stories have no such step: {text}" for text in left_out)])


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
            pass  # stories have no such step
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


def _note(done: Done, states: dict[int, str]) -> None:
    found = {"kill": "down", "stop": "down", "power_loss": "down", "pause": "paused", "fill_disk": "full"}.get(done.do)
    for node in done.nodes:
        states.pop(node, None)
        if found is not None:
            states[node] = found
