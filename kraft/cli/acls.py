"""`kraft acls`: list, create and delete ACLs, as Kafka's `kafka-acls` does."""

from __future__ import annotations

from typing import Annotated, Any, Final
from urllib.parse import urlencode

import typer

from kraft.cli.options import DataOption, JsonOption, RestOption
from kraft.cli.output import CommandFailed, say, write_rows
from kraft.cli.rest import Rest

app = typer.Typer(help="List, create and delete ACLs.", no_args_is_help=True)

COLUMNS: Final = ("principal", "permission", "operation", "resource_type", "resource_name", "pattern_type", "host")
CLUSTER_NAME: Final = "kafka-cluster"

TopicOption = Annotated[str | None, typer.Option("--topic", metavar="NAME", help="A topic; * is all.")]
GroupOption = Annotated[str | None, typer.Option("--group", metavar="ID", help="A group; * is all.")]
TransactionOption = Annotated[
    str | None, typer.Option("--transactional-id", metavar="ID", help="A transactional.id; * is all.")
]
UserOption = Annotated[
    str | None,
    typer.Option("--user-principal", metavar="PRINCIPAL", help="A user as a resource, such as User:alice; * is all."),
]
ClusterOption = Annotated[bool, typer.Option("--cluster", help="The cluster itself.")]
PrefixOption = Annotated[bool, typer.Option("--prefixed", help="The name is the beginning of names.")]
OperationOption = Annotated[
    list[str] | None, typer.Option("--operation", metavar="NAME", help="Such as Read or Write; may be repeated.")
]


@app.command("list")
def list_acls(
    principal: Annotated[str | None, typer.Option(help="Only of this principal, such as User:alice.")] = None,
    topic: TopicOption = None,
    group: GroupOption = None,
    transactional_id: TransactionOption = None,
    user_principal: UserOption = None,
    cluster: ClusterOption = False,
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List ACLs. A name also finds the ACLs whose prefix or wildcard means it."""
    named = _resources(topic, group, transactional_id, user_principal, cluster)
    query: dict[str, str] = {} if principal is None else {"principal": principal}
    client = Rest(rest, data)
    rows: list[dict[str, Any]] = []
    for kind, name in named or [("ANY", "")]:
        asked = query | {"resource_type": kind}
        if name:
            asked |= {"resource_name": name, "pattern_type": "MATCH"}
        found = client.get(client.cluster(f"/acls?{urlencode(asked)}"))["data"]
        rows += [{column: each[column] for column in COLUMNS} for each in found]
    write_rows(rows, COLUMNS, as_json=as_json, empty="there are no such ACLs")


@app.command()
def create(
    principal: Annotated[str, typer.Option(help="Whom it is about: User:alice, or User:* for everybody.")],
    operation: OperationOption = None,
    topic: TopicOption = None,
    group: GroupOption = None,
    transactional_id: TransactionOption = None,
    user_principal: UserOption = None,
    cluster: ClusterOption = False,
    prefixed: PrefixOption = False,
    host: Annotated[str, typer.Option(help="An address, a network such as 10.0.0.0/8, or * for all.")] = "*",
    deny: Annotated[bool, typer.Option("--deny", help="Deny instead of allow.")] = False,
    rest: RestOption = None,
    data: DataOption = None,
) -> None:
    """Create an ACL for each operation on each resource that is named."""
    resources = _resources(topic, group, transactional_id, user_principal, cluster)
    if not resources or not operation:
        raise CommandFailed(
            "name a resource (--topic, --group, --transactional-id, --user-principal or --cluster) and an --operation"
        )
    made = [
        {
            "resource_type": kind,
            "resource_name": name,
            "pattern_type": "PREFIXED" if prefixed else "LITERAL",
            "principal": principal,
            "host": host,
            "operation": _code(each),
            "permission": "DENY" if deny else "ALLOW",
        }
        for kind, name in resources
        for each in operation
    ]
    client = Rest(rest, data)
    client.send_json("POST", client.cluster("/acls:batch"), {"data": made})
    say(f"created {len(made)} ACLs of {principal}")


@app.command()
def delete(
    principal: Annotated[str | None, typer.Option(help="Only of this principal.")] = None,
    operation: OperationOption = None,
    topic: TopicOption = None,
    group: GroupOption = None,
    transactional_id: TransactionOption = None,
    user_principal: UserOption = None,
    cluster: ClusterOption = False,
    prefixed: PrefixOption = False,
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete the ACLs that match all that is named, and list them. A name is that of the ACL itself."""
    resources = _resources(topic, group, transactional_id, user_principal, cluster)
    if principal is None and not resources:
        raise CommandFailed("name whose ACLs go (--principal), or those of which resource")
    client = Rest(rest, data)
    rows: list[dict[str, Any]] = []
    for kind, name in resources or [("ANY", "")]:
        for each in operation or ["ANY"]:
            asked = {
                "resource_type": kind,
                "pattern_type": ("PREFIXED" if prefixed else "LITERAL") if name else "ANY",
                "operation": _code(each),
                "permission": "ANY",
            }
            asked |= {"resource_name": name} if name else {}
            asked |= {"principal": principal} if principal is not None else {}
            gone = client.send_json("DELETE", client.cluster(f"/acls?{urlencode(asked)}"))["data"]
            rows += [{column: every[column] for column in COLUMNS} for every in gone]
    write_rows(rows, COLUMNS, as_json=as_json, empty="no ACL matched")


def _resources(
    topic: str | None, group: str | None, transactional_id: str | None, user: str | None, cluster: bool
) -> list[tuple[str, str]]:
    named = {"TOPIC": topic, "GROUP": group, "TRANSACTIONAL_ID": transactional_id, "USER": user}
    named["CLUSTER"] = CLUSTER_NAME if cluster else None
    return [(kind, name) for kind, name in named.items() if name is not None]


def _code(operation: str) -> str:
    """`DescribeConfigs` and `describe-configs` as the REST API names them, DESCRIBE_CONFIGS."""
    text = operation.replace("-", "_")
    if not text.isupper():
        text = "".join(f"_{letter}" if letter.isupper() and number else letter for number, letter in enumerate(text))
    return text.upper()
