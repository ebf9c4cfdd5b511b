"""The pure parts of a soak: what happens next, what members reached, what grows, and what it is made of."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from kraft.chaos import model
from kraft.chaos.checkers.spans import Spans
from kraft.chaos.nemesis.actions import Action, Elect, Heal, NodeFault, Reassign
from kraft.chaos.soak.faults import WEIGHTS, ClusterState, next_fault
from kraft.chaos.soak.group_reads import GroupReads
from kraft.chaos.soak.leaks import SAMPLES_MIN, Usage, growth_of
from kraft.chaos.soak.plan import GROUP_TOPIC, SoakOptions, clients_of, topics_of

PARTITIONS = [("t", 0), ("t", 1)]
ALL_WELL = ClusterState(nodes=(1, 2, 3), spared=2, controller=1)


def nodes_of(fault: NodeFault) -> set[int]:
    return set(fault.nodes)


def after(cluster_state: ClusterState, action: Action) -> ClusterState:
    """Raises AssertionError for what cannot be done, or kills the spared one."""
    match action:
        case NodeFault(do="kill"):
            hit = nodes_of(action)
            assert not hit & (cluster_state.down | {cluster_state.spared})
            return replace(cluster_state, down=cluster_state.down | hit, paused=cluster_state.paused - hit)
        case NodeFault(do="stop"):
            hit = nodes_of(action)
            assert not hit & (cluster_state.down | cluster_state.paused | {cluster_state.spared})
            return replace(cluster_state, down=cluster_state.down | hit)
        case NodeFault(do="pause"):
            assert nodes_of(action) <= set(cluster_state.running)
            return replace(cluster_state, paused=cluster_state.paused | nodes_of(action))
        case NodeFault(do="resume"):
            assert nodes_of(action) <= cluster_state.paused
            return replace(cluster_state, paused=cluster_state.paused - nodes_of(action))
        case NodeFault(do="restart"):
            assert nodes_of(action) <= cluster_state.down
            return replace(cluster_state, down=cluster_state.down - nodes_of(action))
        case NodeFault(do="disk_full"):
            assert not cluster_state.full, "one at a time"
            return replace(cluster_state, full=nodes_of(action))
        case NodeFault(do="disk_free"):
            assert nodes_of(action) <= cluster_state.full
            return replace(cluster_state, full=frozenset())
        case Heal():
            assert cluster_state.cuts
            return replace(cluster_state, cuts=0)
        case Reassign() | Elect():
            assert (action.topic, action.partition) in PARTITIONS
            return cluster_state
    return replace(cluster_state, cuts=cluster_state.cuts + 1)


@given(st.integers(0, 10_000))
def test_each_strike_is_possible_as_the_cluster_stands(seed: int) -> None:
    cluster_state, rng = ALL_WELL, Random(seed)
    for _ in range(60):
        _, action = next_fault(cluster_state, rng, partitions=PARTITIONS)
        cluster_state = after(cluster_state, action)


def test_every_kind_comes_and_one_seed_gives_one_story() -> None:
    def story() -> list[str]:
        cluster_state, rng, kinds = ALL_WELL, Random(1), []
        for _ in range(600):
            kind, action = next_fault(cluster_state, rng, partitions=PARTITIONS)
            cluster_state = after(cluster_state, action)
            kinds.append(kind)
        return kinds

    assert story() == story()
    assert Counter(story()).keys() == {*WEIGHTS, "mend"}


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 8)), max_size=30), st.integers(0, 70))
def test_offsets_are_a_set(added: list[tuple[int, int]], end: int) -> None:
    offsets, known = Spans(spans_max=None), set()
    for start, count in added:
        offsets.add(start, start + count)
        known |= set(range(start, start + count))
    missing = {offset for first, after_last in offsets.missing_below(end) for offset in range(first, after_last)}
    assert missing == set(range(end)) - known
    assert all(one[1] < two[0] for one, two in pairwise(offsets))
    assert all((offset in offsets) == (offset in known) for offset in range(70))


def test_lost_commit_and_skipped_record_are_found() -> None:
    reached = GroupReads()
    reached.was_read(0, [0, 1, 2, 5, 6])
    reached.was_committed({0: 7, 1: 3})
    reached.was_committed({0: 5})
    assert list(reached.problems(final={0: 7, 1: 3}, ends={})) == []
    forgot = list(reached.problems(final={0: 6}, ends={0: 3}))
    assert forgot == [
        "partition 0: a commit of 7 was acknowledged, and the group has 6",
        "partition 1: a commit of 3 was acknowledged, and the group has nothing",
    ]
    skipped = list(reached.problems(final={0: 7, 1: 3}, ends={0: 8, 1: 1}))
    assert skipped == [
        "partition 0: no member received the offsets [(3, 5), (7, 8)] of 8",
        "partition 1: no member received the offsets [(0, 1)] of 1",
    ]


def usages(memory_mb: list[int], files: list[int]) -> list[Usage]:
    return [
        Usage(at_ms=at, memory_bytes=mb * 1_000_000, open_files=count)
        for at, (mb, count) in enumerate(zip(memory_mb, files, strict=True))
    ]


def test_growth_is_a_leak_and_variation_is_not() -> None:
    count = SAMPLES_MIN * 4
    waves = usages([100 + 60 * (n % 2) for n in range(count)], [50 + n % 30 for n in range(count)])
    leak = usages([100 + 3 * n for n in range(count)], [50 + 10 * n for n in range(count)])
    few = leak[:: count // (SAMPLES_MIN - 1)][: SAMPLES_MIN - 1]
    logs = {1: waves, 2: leak, 3: few, 4: []}
    reported = {growth.node: list(growth.problems) for growth in growth_of(logs, replicas=10)}
    assert reported[1] == reported[3] == []
    assert [text.split(":")[0] for text in reported[2]] == [
        "node 2 needs more and more memory",
        "node 2 opens more and more files",
    ]
    assert 4 not in reported
    (many,) = growth_of({2: usages([100] * count, [50 + 10 * n for n in range(count)])}, replicas=1_000)
    assert not list(many.problems), "files of replicas are opened when they are needed"


@given(st.integers(7, 10_000), st.integers(6, 2_000))
def test_partitions_and_rate_of_a_soak(partitions: int, rate: int) -> None:
    options = SoakOptions(minutes=1, partitions=partitions, rate=rate)
    topics = topics_of(options)
    assert sum(topics.values()) == partitions
    clients = clients_of(options)
    assert len({client.name for client in clients}) == len(clients)
    assert {client.topic for client in clients} == set(topics)
    sent = sum(client.rate for client in clients if isinstance(client, model.Producer))
    assert rate / 2 <= sent <= rate + len(topics)
    assert GROUP_TOPIC in topics
    for client in clients:
        if isinstance(client, model.Producer):
            assert client.retries == 0 or client.idempotent, "what is sent again must be stored once"
