"""For each HTTP route the operation and the resource that Kafka checks for the same over its own protocol.

A route without a row is refused. Beside its row, a request sees and changes only what its principal may
(`kraft.http.restricted_gateway`): topics in a body are checked there, and topics without Describe do not exist for it.
docs/security.md has the table made of these rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from kraft.broker.principal import CLIENT
from kraft.http.endpoint import Call, Route
from kraft.http.restricted_gateway import restricted
from kraft.protocol.errors import ClusterAuthorizationFailed
from metadata.acls import CLUSTER_NAME, AclOperation, AclResource

READ, WRITE, CREATE, DELETE = AclOperation.READ, AclOperation.WRITE, AclOperation.CREATE, AclOperation.DELETE
ALTER, DESCRIBE, CLUSTER_ACTION = AclOperation.ALTER, AclOperation.DESCRIBE, AclOperation.CLUSTER_ACTION
DESCRIBE_CONFIGS, ALTER_CONFIGS = AclOperation.DESCRIBE_CONFIGS, AclOperation.ALTER_CONFIGS
V3: Final = "/v3/clusters/{cluster_id}"


class Needed(NamedTuple):
    """An operation on the resource that a parameter of the path names."""

    operation: AclOperation
    resource: AclResource
    parameter: str = ""
    """Empty: the cluster."""


class RouteAccess(NamedTuple):
    """What one route needs."""

    needs: tuple[Needed, ...] = ()
    states: str = ""
    """What is checked elsewhere, or why nothing is needed, for the documentation."""


def _topic(*operations: AclOperation, states: str = "") -> RouteAccess:
    return RouteAccess(tuple(Needed(each, AclResource.TOPIC, "topic") for each in operations), states)


def _group(*operations: AclOperation, states: str = "") -> RouteAccess:
    return RouteAccess(tuple(Needed(each, AclResource.GROUP, "group") for each in operations), states)


def _cluster(operation: AclOperation) -> RouteAccess:
    return RouteAccess((Needed(operation, AclResource.CLUSTER),))


def _transaction(operation: AclOperation, *more: Needed, states: str = "") -> RouteAccess:
    return RouteAccess((Needed(operation, AclResource.TRANSACTIONAL_ID, "transactional_id"), *more), states)


_OPEN: Final = RouteAccess(states="nothing: whether the node is ready, and documents about the API")
_KNOWN: Final = RouteAccess(states="nothing: every client of Kafka learns it from Metadata")
_VISIBLE: Final = RouteAccess(states="the topics with Describe on Topic")
_SHOWN: Final = "of topics, those with Describe on Topic"
_CONSUMER: Final = "/consumers/{group}/instances/{instance}"
_WRITES_TO: Final = Needed(WRITE, AclResource.TOPIC, "topic")


def _v2() -> dict[str, RouteAccess]:
    partition = "/topics/{topic}/partitions/{partition}"
    rows = {
        "POST /topics/{topic}": _topic(WRITE),
        f"POST {partition}": _topic(WRITE),
        f"GET {partition}/records": _topic(READ),
        "GET /topics/{topic}/records": _topic(READ),
        "GET /brokers": _KNOWN,
        "GET /topics": _VISIBLE,
        "GET /topics/{topic}": _topic(DESCRIBE),
        "GET /topics/{topic}/partitions": _topic(DESCRIBE),
        f"GET {partition}": _topic(DESCRIBE),
        f"GET {partition}/offsets": _topic(DESCRIBE),
        "POST /admin/topics": RouteAccess(states="Create on Cluster, or on the Topic"),
        "POST /consumers/{group}": _group(READ),
        f"DELETE {_CONSUMER}": _group(READ),
        f"GET {_CONSUMER}/records": _group(READ, states="Read on each Topic"),
        f"POST {_CONSUMER}/offsets:query": _group(READ),
    }
    for tail in ("subscription", "assignments", "offsets"):
        rows |= {f"{method} {_CONSUMER}/{tail}": _group(READ) for method in ("POST", "GET", "DELETE")}
    for tail in ("", "/beginning", "//beginning", "/end", "//end"):
        rows[f"POST {_CONSUMER}/positions{tail}"] = _group(READ)
    rows[f"POST {_CONSUMER}/offsets"] = _group(READ, states="Read on each Topic")
    del rows[f"DELETE {_CONSUMER}/assignments"], rows[f"DELETE {_CONSUMER}/offsets"]
    return rows


def _transactions() -> dict[str, RouteAccess]:
    one = "/transactions/{transactional_id}"
    return {
        f"POST {one}": _transaction(WRITE),
        f"GET {one}": _transaction(DESCRIBE, states=_SHOWN),
        f"POST {one}/topics/{{topic}}": _transaction(WRITE, _WRITES_TO),
        f"POST {one}/topics/{{topic}}/partitions/{{partition}}": _transaction(WRITE, _WRITES_TO),
        f"POST {one}/offsets": _transaction(WRITE, states="Read on the Group; Read on each Topic"),
        f"POST {one}/commit": _transaction(WRITE),
        f"POST {one}/abort": _transaction(WRITE),
        f"GET {V3}/transactions": RouteAccess(states="the ids with Describe on TransactionalId"),
        f"GET {V3}{one}": _transaction(DESCRIBE, states=_SHOWN),
        f"GET {V3}/topics/{{topic}}/partitions/{{partition}}/producers": _topic(READ),
        f"POST {V3}/topics/{{topic}}/partitions/{{partition}}/transactions:abort": _cluster(CLUSTER_ACTION),
    }


def _node() -> dict[str, RouteAccess]:
    paths = (
        "/", "/healthz", "/readyz", "/healthy", "/ready", "/status/ready", "/_health", "/docs", "/docs/{asset}",
        "/openapi.json", "/openapi", "/openapi/v3", "/console", "/console/{file}",
    )  # fmt: skip
    described = _cluster(DESCRIBE)
    shown = RouteAccess(described.needs, _SHOWN)
    return {f"GET {path}": _OPEN for path in paths} | {
        "GET /metrics": described,
        "GET /kraft/status": RouteAccess(states="nothing: how many, and no names; `kraft up` waits for it"),
        "GET /kraft/partitions": shown,
        "GET /kraft/events": shown,
        "GET /kraft/facts": shown,
        "GET /kraft/changes": shown,
        "GET /kraft/live": shown,
        "GET /kraft/evidence": shown,
        "GET /kraft/explain/partition/{topic}/{partition}": _topic(DESCRIBE),
        "GET /kraft/explain/node/{broker_id}": shown,
        "GET /kraft/explain/client/{client}": shown,
        "GET /kraft/explain/record/{topic}/{partition}/{offset}": _topic(DESCRIBE),
        "GET /kraft/explain/group/{group}": _group(DESCRIBE),
        "GET /kraft/explain/queue/{group}": _group(DESCRIBE),
        "GET /kraft/explain/transaction/{transactional_id}": _transaction(DESCRIBE, states=_SHOWN),
        "GET /kraft/users": described,
        "PUT /kraft/users/{user}": _cluster(ALTER),
        "DELETE /kraft/users/{user}": _cluster(ALTER),
    }


def _v3_cluster() -> dict[str, RouteAccess]:
    rows = {
        "GET /v3/clusters": _KNOWN,
        f"GET {V3}": _KNOWN,
        f"GET {V3}/brokers": _KNOWN,
        f"GET {V3}/brokers/{{broker_id}}": _KNOWN,
        f"GET {V3}/brokers/{{broker_id}}/partition-replicas": _VISIBLE,
        f"GET {V3}/brokers/-/configs": _cluster(DESCRIBE_CONFIGS),
        f"GET {V3}/acls": _cluster(DESCRIBE),
        f"POST {V3}/acls": _cluster(ALTER),
        f"DELETE {V3}/acls": _cluster(ALTER),
        f"POST {V3}/acls:batch": _cluster(ALTER),
        f"POST {V3}/elections": _cluster(ALTER),
        f"GET {V3}/client-quotas": _cluster(DESCRIBE_CONFIGS),
        f"POST {V3}/client-quotas:alter": _cluster(ALTER_CONFIGS),
    }
    for path in (f"{V3}/brokers/{{broker_id}}/configs", f"{V3}/broker-configs"):
        rows |= {
            f"GET {path}": _cluster(DESCRIBE_CONFIGS),
            f"POST {path}:alter": _cluster(ALTER_CONFIGS),
            f"GET {path}/{{name}}": _cluster(DESCRIBE_CONFIGS),
            f"PUT {path}/{{name}}": _cluster(ALTER_CONFIGS),
            f"DELETE {path}/{{name}}": _cluster(ALTER_CONFIGS),
        }
    return rows


def _v3_topics() -> dict[str, RouteAccess]:
    topics = f"{V3}/topics"
    one = f"{topics}/{{topic}}"
    partition = f"{one}/partitions/{{partition}}"
    return {
        f"GET {topics}/-/configs": RouteAccess(states="the topics with DescribeConfigs on Topic"),
        f"POST {topics}/-/configs:alter": RouteAccess(states="AlterConfigs on each Topic"),
        f"GET {one}/configs": _topic(DESCRIBE_CONFIGS),
        f"POST {one}/configs:alter": _topic(ALTER_CONFIGS),
        f"GET {one}/configs/{{name}}": _topic(DESCRIBE_CONFIGS),
        f"PUT {one}/configs/{{name}}": _topic(ALTER_CONFIGS),
        f"DELETE {one}/configs/{{name}}": _topic(ALTER_CONFIGS),
        f"GET {topics}": _VISIBLE,
        f"POST {topics}": RouteAccess(states="Create on Cluster, or on the Topic"),
        f"GET {one}": _topic(DESCRIBE),
        f"DELETE {one}": _topic(DELETE),
        f"PATCH {one}": _topic(ALTER),
        f"GET {topics}/-/partitions/-/reassignment": _cluster(DESCRIBE),
        f"GET {one}/partitions/-/reassignment": _cluster(DESCRIBE),
        f"GET {partition}/reassignment": _cluster(DESCRIBE),
        f"POST {partition}/reassignment": _cluster(ALTER),
        f"DELETE {partition}/reassignment": _cluster(ALTER),
        f"GET {one}/partitions": _topic(DESCRIBE),
        f"GET {partition}": _topic(DESCRIBE),
        f"GET {partition}/offset": _topic(DESCRIBE),
        f"GET {partition}/replicas": _topic(DESCRIBE),
        f"GET {partition}/replicas/{{broker_id}}": _topic(DESCRIBE),
        f"POST {partition}:elect": _cluster(ALTER),
        f"POST {one}/records:batch": _topic(WRITE),
        f"POST {one}/records": _topic(WRITE),
    }


def _v3_groups() -> dict[str, RouteAccess]:
    listed = RouteAccess(states="Describe on Cluster; else the groups with Describe on Group")
    rows: dict[str, RouteAccess] = {}
    for groups in (f"{V3}/consumer-groups", f"{V3}/share-groups"):
        one = f"{groups}/{{group}}"
        rows |= {f"GET {groups}": listed, f"DELETE {one}": _group(DELETE)}
        for tail in ("", "/consumers", "/consumers/{consumer}"):
            rows[f"GET {one}{tail}"] = _group(DESCRIBE)
        for tail in ("/consumers/{consumer}/assignments", "/lags"):
            rows[f"GET {one}{tail}"] = _group(DESCRIBE, states=_SHOWN)
        rows[f"POST {one}/offsets:reset"] = _group(READ, states="Read on each Topic")
    consumers, shares = f"{V3}/consumer-groups/{{group}}", f"{V3}/share-groups/{{group}}"
    place = "{topic}/partitions/{partition}"
    offsets_deleted = RouteAccess((*_group(DELETE).needs, *_topic(READ).needs))
    assignment = RouteAccess((*_group(DESCRIBE).needs, *_topic(DESCRIBE).needs))
    return rows | {
        f"GET {consumers}/consumers/{{consumer}}/assignments/{place}": assignment,
        f"GET {consumers}/lag-summary": _group(DESCRIBE),
        f"GET {consumers}/lags/{place}": _group(DESCRIBE),
        f"DELETE {consumers}/offsets/{{topic}}": offsets_deleted,
        f"DELETE {consumers}/offsets/{place}": offsets_deleted,
        f"POST {V3}/share-groups": RouteAccess(states="Read on the Group"),
        f"POST {shares}/records:receive": _group(READ, states="Read on each Topic"),
        f"POST {shares}/records:peek": _group(READ, states="Read on each Topic"),
        f"POST {shares}/records:acknowledge": _group(READ, states="Read on each Topic"),
        f"POST {shares}/records:redrive": _group(READ, states="Read on the Topic of dead letters, Write on each Topic"),
        f"GET {shares}/configs": _group(DESCRIBE_CONFIGS),
        f"POST {shares}/configs:alter": _group(ALTER_CONFIGS),
    }


def _v3_routes() -> dict[str, RouteAccess]:
    """ACLs know a route as the topic of its name."""
    routes = f"{V3}/routes"
    one = f"{routes}/{{route}}"
    bound = "Describe on each bound Topic"
    return {
        f"GET {routes}": RouteAccess(states="the routes with Describe on the Topic of their name"),
        f"POST {routes}": RouteAccess(states=f"Create on Cluster, or on the Topic of its name; {bound}"),
        f"GET {one}": _route(DESCRIBE),
        f"DELETE {one}": _route(DELETE),
        f"POST {one}/bindings:alter": _route(ALTER, states=bound),
        f"GET {one}/topics": _route(DESCRIBE),
        f"POST {one}/records:batch": _route(WRITE, states="Write on each Topic that a record goes to"),
    }


def _route(operation: AclOperation, *, states: str = "") -> RouteAccess:
    return RouteAccess((Needed(operation, AclResource.TOPIC, "route"),), states)


ROUTE_ACCESS: Final[Mapping[str, RouteAccess]] = {
    **_v2(), **_transactions(), **_node(), **_v3_cluster(), **_v3_topics(), **_v3_groups(), **_v3_routes(),
}  # fmt: skip
"""Method and path -> what is needed."""


def check_access(call: Call, route: Route) -> None:
    """Refuses what the principal may not do, and lets its request see only what it may. Raises the authorization
    errors of Kafka."""
    CLIENT.set(call.principal)
    call.route = route.path
    may = call.permissions
    if may is None:
        return
    row = ROUTE_ACCESS.get(f"{route.method} {route.path}")
    if row is None:
        raise ClusterAuthorizationFailed("nobody has declared what this route needs")
    needs = [
        (need.operation, need.resource, call.path[need.parameter] if need.parameter else CLUSTER_NAME)
        for need in row.needs
    ]
    for need in needs:
        may.check(*need)
    call.needs = needs
    call.context = restricted(call.context, call.principal, what=f"{route.method} {route.path}")
