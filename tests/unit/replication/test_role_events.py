"""What a change of roles tells operators: enough to say later who led which epoch from which offset on."""

from __future__ import annotations

from metadata.delta import delta_between
from tests.unit.replication.harness.cluster import Cluster, Node
from tests.unit.replication.harness.virtual import run


def test_a_leader_reports_its_epoch_and_where_it_began() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create()
            await cluster.produce(key, b"a")
            cluster.elect(key, 2, (1, 2, 3))
            reported = cluster.nodes[2].events.named("became_leader")[-1]
            assert (reported["leader_epoch"], reported["epoch_start_offset"]) == (
                cluster.partition(key).leader_epoch,
                1,
            )
            assert reported["topic_id"] == str(key.topic_id)

    run(story())


def test_a_leader_that_stays_reports_a_new_epoch_too() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create()
            await cluster.produce(key, b"a")
            cluster.elect(key, 1, (1, 2, 3))
            epochs = [reported["leader_epoch"] for reported in cluster.nodes[1].events.named("became_leader")]
            assert epochs == sorted(set(epochs))
            assert epochs[-1] == cluster.partition(key).leader_epoch

    run(story())


def test_a_follower_reports_whom_it_follows_and_what_it_has() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create()
            await cluster.produce(key, b"a")
            cluster.elect(key, 2, (1, 2, 3))
            reported = cluster.nodes[1].events.named("became_follower")[-1]
            assert (reported["leader"], reported["leader_epoch"]) == (2, cluster.partition(key).leader_epoch)
            assert (reported["log_end_offset"], reported["partition"]) == (1, 0)

    run(story())


def test_a_follower_of_a_silent_leader_reports_how_long_it_has_waited() -> None:
    async def story() -> None:
        async with Cluster(replica_socket_timeout_ms=700, replica_fetch_wait_max_ms=300) as cluster:
            cluster.create(replicas=(1, 2))
            cluster.delay_ms = 100_000
            await cluster.until(lambda: bool(cluster.nodes[2].events.named("leader_unreachable")))
            reported = cluster.nodes[2].events.named("leader_unreachable")[-1]
            assert reported["error"] == "leader 1 has not answered a fetch within 1000 ms"

    run(story())


def test_deleted_records_are_reported_once() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create()
            await cluster.produce(key, b"a")
            await cluster.produce(key, b"b")
            for _ in range(2):
                await cluster.nodes[1].manager.offsets.delete_records(key, offset=1, timeout_ms=5_000)
            reported = [event["log_start_offset"] for event in cluster.nodes[1].events.named("records_deleted")]
            assert reported == [1]

    run(story())


def test_a_start_that_is_cut_short_takes_no_log_for_a_stray() -> None:
    """Found by simulated clusters (nodes 21240): the registration came while the node stopped, and all logs went."""

    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create()
            await cluster.produce(key, b"a")
            await cluster.kill(2)
            node = cluster.nodes[2] = Node(cluster, 2, cluster.nodes[2].logs)
            await node.manager.start()
            await node.manager.stop()
            node.manager.apply_metadata(delta_between(node.manager.image, cluster.image))
            node.manager.remove_strays()
            assert cluster.payloads(2, key) == [b"a"]
            node.is_up = False

    run(story())
