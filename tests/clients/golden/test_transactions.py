"""While markers cannot be written, a cluster of ours answers over the wire as Apache Kafka did, and goes on when they
can: also where the producer id is rotated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kraft.coordinators.transactions.state import LAST_CLIENT_EPOCH
from kraft.protocol.messages.find_coordinator_request import FindCoordinatorRequestData
from metadata.internal_topics import OFFSETS_TOPIC, TRANSACTIONS_TOPIC
from tests.clients.golden.peer import Peer
from tests.clients.golden.program import TRANSACTION_COORDINATOR
from tests.clients.golden.record_transactions import HERE, THERE, StoryAtKafka
from tests.clients.golden.transactions import NOT_ASKED, Id, Names, Until, Way, read
from tests.integration.conftest import run_cluster
from tests.integration.support.cluster import Cluster
from tests.integration.support.waiting import wait_until

SETTINGS = {
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 1,
}
TRIED_AGAIN = (14, 15, 16, 51)
REQUESTS = (
    "InitProducerId",
    "AddPartitionsToTxn 3",
    "AddOffsetsToTxn 4",
    "EndTxn 4 commit",
    "EndTxn 4 abort",
    "EndTxn 5 commit",
    "EndTxn 5 abort",
)
"""Of the table. AddPartitionsToTxn 5 is for brokers, and what a leader asks it for waits until markers are written."""
RECORDED = read()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One node coordinates all transactional ids, and has a topic; another one has the other topic."""
    for cluster in run_cluster(tmp_path_factory.mktemp("transactions"), settings=SETTINGS):
        wait_for_coordinator(cluster)
        for topic, node_id in ((OFFSETS_TOPIC, coordinator(cluster)), (HERE, coordinator(cluster))):
            cluster.create_assigned(topic, [node_id], [node_id], [node_id])
        cluster.create_assigned(THERE, [other(cluster)])
        yield cluster


def wait_for_coordinator(cluster: Cluster) -> None:
    peer = peer_of(cluster, cluster.ids[0])
    finding = FindCoordinatorRequestData.make(key="any", key_type=TRANSACTION_COORDINATOR)

    def is_there() -> bool:
        answer: Any = peer.ask("", finding, 3)
        return bool(answer.error_code == 0)

    wait_until(is_there, what="a coordinator")
    peer.close()


def coordinator(cluster: Cluster) -> int:
    return cluster.leader_of(TRANSACTIONS_TOPIC)


def other(cluster: Cluster) -> int:
    return next(each for each in cluster.ids if each != coordinator(cluster))


def peer_of(cluster: Cluster, node_id: int) -> Peer:
    host, _, port = cluster.node(node_id).kafka.rpartition(":")
    return Peer((host, int(port)))


@pytest.fixture
def peer(cluster: Cluster) -> Iterator[Peer]:
    peer = peer_of(cluster, coordinator(cluster))
    yield peer
    peer.close()
    cluster.heal()


def answers(story: StoryAtKafka, way: Way) -> dict[str, dict[str, str]]:
    """To what Kafka was asked in this phase; no answer changes anything."""
    assert story.known is not None
    found: dict[str, dict[str, str]] = {}
    for request in REQUESTS:
        for column, recorded in RECORDED[way.name][request].items():
            if recorded != NOT_ASKED:
                code, _ = story.asked(request, Names(story.known, story.following).producer(column))
                found.setdefault(request, {})[column] = str(code)
    return found


def recorded(way: Way) -> dict[str, dict[str, str]]:
    return {
        request: {column: answer for column, answer in RECORDED[way.name][request].items() if answer != NOT_ASKED}
        for request in REQUESTS
    }


@pytest.mark.long
def test_what_comes_before_markers_are_written_is_tried_again_and_then_goes_on(cluster: Cluster, peer: Peer) -> None:
    stories = {
        Way(f"init init {steps}", Until.HELD): StoryAtKafka(peer, f"held-{number}", THERE)
        for number, steps in enumerate(("add3 end4-abort", "add5 end5-commit"))
    }
    cluster.pause(other(cluster))
    for way, story in stories.items():
        for step in way.steps.replace("add5", "add3").split():
            story.take(step)
        assert answers(story, way) == recorded(way), way.name
    cluster.resume(other(cluster))
    for way, story in stories.items():
        assert story.known is not None
        ahead = 1 if "end5" in way.steps else 0
        goes_on(story, Id(story.known.producer_id, story.known.epoch + ahead))


@pytest.mark.long
def test_the_same_where_the_producer_id_is_rotated(cluster: Cluster, peer: Peer) -> None:
    """At the last epoch EndTxn 5 answers the next producer id, which is in force when markers are written."""
    way = Way("init init add5 end5-commit", Until.HELD, is_near_end=True)
    story = StoryAtKafka(peer, "rotated", THERE)
    while story.init(None)[1].epoch < LAST_CLIENT_EPOCH - 1:
        pass
    story.take("init")
    assert story.known is not None
    cluster.pause(other(cluster))
    story.take("add3")
    code, following = story.end(story.known, 5, commits=True)
    assert code == 0
    assert following is not None
    assert (following.producer_id != story.known.producer_id, following.epoch) == (True, 0)
    assert answers(story, way) == recorded(way)
    its_own = {request: story.asked(request, following)[0] for request in REQUESTS}
    assert its_own == {request: 49 if "EndTxn 4" in request else 51 for request in REQUESTS}
    cluster.resume(other(cluster))
    goes_on(story, following)


def goes_on(story: StoryAtKafka, producer: Id) -> None:
    def is_added() -> bool:
        code = story.add(producer, 3, None)
        assert code in (0, *TRIED_AGAIN), code
        return code == 0

    wait_until(is_added, what=f"{producer} goes on")
    assert story.end(producer, 5, commits=True)[0] == 0
