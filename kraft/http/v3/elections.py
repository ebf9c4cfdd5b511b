"""v3 leader elections, preferred or unclean (L5, L6): an addition of ours."""

from __future__ import annotations

from aiohttp import web

from kraft.http.endpoint import Call
from kraft.http.errors import V3_TOPIC_NOT_FOUND, from_kafka
from kraft.http.v3 import models
from kraft.http.v3.envelope import Document, answer, no_content, route
from kraft.http.v3.partitions import find_partition
from kraft.protocol.errors import ElectionNotNeeded
from metadata.controller.requests import ElectLeaders, ErrorDetail


async def elect(call: Call) -> web.Response:
    """One entry per partition; those that needed no election are fine and are said to be so."""
    outcomes = await call.context.control(_asked(call))
    data = [_result(topic, partition, outcome) for (topic, partition), outcome in sorted(outcomes.items(), key=_place)]
    return answer({"kind": "KafkaElectionResultList", "data": data})


def _asked(call: Call) -> ElectLeaders:
    asked = call.model(models.ElectionRequest)
    partitions = asked.partitions
    targets = None if partitions is None else tuple((p.topic_name, p.partition_id) for p in partitions)
    return ElectLeaders(election=asked.election_type, partitions=targets)


async def elect_partition(call: Call) -> web.Response:
    """ElectLeaders of one partition, preferred where the body names no type: 204, also when none was needed. Raises
    HttpError 404, EligibleLeadersNotAvailable 83, PreferredLeaderNotAvailable 80."""
    topic, partition = find_partition(call)
    asked = call.model(models.PartitionElection) if call.body else models.PartitionElection()
    target = (topic.name, partition.partition)
    outcomes = await call.context.control(ElectLeaders(election=asked.election_type, partitions=(target,)))
    outcome = outcomes[target]
    if outcome is not None and outcome.error is not ElectionNotNeeded:
        raise outcome.exception()
    return no_content()


def _place(item: tuple[tuple[str, int], ErrorDetail | None]) -> tuple[str, int]:
    return item[0]


def _result(topic: str, partition: int, outcome: ErrorDetail | None) -> Document:
    result: Document = {"topic_name": topic, "partition_id": partition, "error_code": None, "message": None}
    if outcome is not None:
        error = from_kafka(outcome.exception(), unknown_topic=V3_TOPIC_NOT_FOUND)
        result |= {"error_code": error.code, "message": error.message, **error.extra}
    return result


_ERRORS = (40002, 40403, 50302, 50401)

ROUTES = (
    route(
        "POST",
        "/elections",
        elect,
        "Elect leaders of many partitions.",
        models.PartitionResults,
        body=models.ElectionRequest,
        errors=_ERRORS,
    ),
    route(
        "POST",
        "/topics/{topic}/partitions/{partition}:elect",
        elect_partition,
        "Elect the leader of one partition.",
        body=models.PartitionElection,
        errors=_ERRORS,
    ),
)
