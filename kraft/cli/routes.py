"""`kraft routes`: list, describe, create, bind, unbind, delete, and try where a key goes."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from kraft.cli.options import DataOption, JsonOption, RestOption
from kraft.cli.output import CommandFailed, write, write_json, write_pairs, write_rows
from kraft.cli.rest import Rest
from kraft.client.response import segment

app = typer.Typer(
    help="List, describe, create, bind, unbind, delete routes, and try where a routing key goes.", no_args_is_help=True
)

RouteArgument = Annotated[str, typer.Argument(metavar="ROUTE", help="Name of the route.")]
BindingsArgument = Annotated[
    list[str], typer.Argument(metavar="[KEY=]TOPIC...", help="A topic, and the key that records for it match.")
]
COLUMNS = ("route_name", "route_kind", "bindings")
BINDING_COLUMNS = ("binding_key", "topic_name")


@app.command("list")
def list_routes(rest: RestOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """List all routes."""
    client = Rest(rest, data)
    rows = [
        {**{name: each[name] for name in COLUMNS}, "bindings": len(each["bindings"])}
        for each in client.get(client.cluster("/routes"))["data"]
    ]
    write_rows(rows, COLUMNS, as_json=as_json, empty="there are no routes")


@app.command()
def describe(
    route: RouteArgument, rest: RestOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """Show the kind of a route and its bindings."""
    client = Rest(rest, data)
    found = client.get(_path(client, route))
    if as_json:
        write_json({name: found[name] for name in COLUMNS})
        return
    write_pairs({"kind": found["route_kind"]}, as_json=False, title=route)
    write_rows(found["bindings"], BINDING_COLUMNS, as_json=False, empty="no bindings: each record would be refused")


@app.command()
def create(
    route: RouteArgument,
    bindings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=]TOPIC...", help="A topic, and the key that records for it match."),
    ] = None,
    kind: Annotated[str, typer.Option(metavar="direct|pattern|fanout", help="How bindings match.")] = "direct",
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a route. A key of a pattern has words with dots between: * is one word, # any number of them."""
    client = Rest(rest, data)
    body = {"route_name": route, "kind": kind, "bindings": [_binding(each) for each in bindings or ()]}
    client.send_json("POST", client.cluster("/routes"), body)
    _report(route, "created", as_json=as_json)


@app.command()
def bind(
    route: RouteArgument,
    bindings: BindingsArgument,
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bind topics to a route, all or none."""
    _alter(Rest(rest, data), route, {"add": [_binding(each) for each in bindings]})
    _report(route, "bound", as_json=as_json)


@app.command()
def unbind(
    route: RouteArgument,
    bindings: BindingsArgument,
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove bindings of a route, all or none."""
    _alter(Rest(rest, data), route, {"remove": [_binding(each) for each in bindings]})
    _report(route, "unbound", as_json=as_json)


@app.command()
def delete(route: RouteArgument, rest: RestOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Delete a route. Its topics stay."""
    client = Rest(rest, data)
    client.send_json("DELETE", _path(client, route))
    _report(route, "deleted", as_json=as_json)


@app.command("try")
def try_key(
    route: RouteArgument,
    key: Annotated[str, typer.Argument(metavar="[KEY]", help="The routing key of a record.")] = "",
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show to which topics a record with this routing key would go. Ends with 1 when it would go nowhere."""
    client = Rest(rest, data)
    found = client.get(f"{_path(client, route)}/topics?routing_key={quote(key, safe='')}")
    if as_json:
        write_json(found)
    for topic in [] if as_json else found["topics"]:
        write(topic)
    if not found["topics"]:
        raise CommandFailed(f"no binding of {route} matches {key!r}: the record would be refused")


def _alter(client: Rest, route: str, change: dict[str, Any]) -> None:
    client.send_json("POST", _path(client, route) + "/bindings:alter", change)


def _binding(text: str) -> dict[str, str]:
    """A topic's name has no =, so the last one ends the key."""
    key, _, topic = text.rpartition("=")
    return {"binding_key": key, "topic_name": topic}


def _path(client: Rest, route: str) -> str:
    return client.cluster(f"/routes/{segment(route)}")


def _report(route: str, done: str, *, as_json: bool) -> None:
    if as_json:
        write_json({"route": route, done: True})
    else:
        write(f"route {route} {done}")
