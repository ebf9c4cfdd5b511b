"""`kraft quotas`: list, set and remove the quotas of users, client ids and addresses, as `kafka-configs` does."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from kraft.cli.options import DataOption, JsonOption, RestOption
from kraft.cli.output import CommandFailed, say, write_rows
from kraft.cli.rest import Rest

app = typer.Typer(help="List, set and remove quotas of clients.", no_args_is_help=True)

COLUMNS: Final = ("user", "client_id", "ip", "quota", "value")
DEFAULT: Final = "<default>"
"""How a default is named, and written in a table."""

UserOption = Annotated[str | None, typer.Option("--user", metavar="NAME", help=f"A user; {DEFAULT}: every other one.")]
ClientOption = Annotated[str | None, typer.Option("--client-id", metavar="ID", help=f"A client.id, or {DEFAULT}.")]
IpOption = Annotated[str | None, typer.Option("--ip", metavar="ADDRESS", help=f"An address, or {DEFAULT}.")]
QuotasArgument = Annotated[list[str], typer.Argument(metavar="QUOTA...", help="Such as producer_byte_rate=1048576.")]


@app.command("list")
def list_quotas(rest: RestOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """List all quotas."""
    client = Rest(rest, data)
    rows = [
        {
            "user": _shown(each["entity"], "user"),
            "client_id": _shown(each["entity"], "client-id"),
            "ip": _shown(each["entity"], "ip"),
            "quota": name,
            "value": value,
        }
        for each in client.get(client.cluster("/client-quotas"))["data"]
        for name, value in each["quotas"].items()
    ]
    write_rows(rows, COLUMNS, as_json=as_json, empty="there are no quotas")


@app.command("set")
def set_quotas(
    quotas: QuotasArgument,
    user: UserOption = None,
    client_id: ClientOption = None,
    ip: IpOption = None,
    rest: RestOption = None,
    data: DataOption = None,
) -> None:
    """Set quotas: bytes of produces and of fetches per second, request_percentage (of a node's processor time),
    partitions created and deleted per second."""
    values: dict[str, float | None] = {}
    for each in quotas:
        name, _, text = each.partition("=")
        try:
            values[name] = float(text)
        except ValueError:
            raise CommandFailed(f"{each} is no quota: write name=number") from None
    _alter(Rest(rest, data), _entity(user, client_id, ip), values)


@app.command("remove")
def remove_quotas(
    quotas: QuotasArgument,
    user: UserOption = None,
    client_id: ClientOption = None,
    ip: IpOption = None,
    rest: RestOption = None,
    data: DataOption = None,
) -> None:
    """Remove quotas by their names."""
    _alter(Rest(rest, data), _entity(user, client_id, ip), dict.fromkeys(quotas))


def _alter(client: Rest, entity: dict[str, str | None], quotas: dict[str, float | None]) -> None:
    client.send_json("POST", client.cluster("/client-quotas:alter"), {"entity": entity, "quotas": quotas})
    say(f"altered {', '.join(quotas)}")


def _entity(user: str | None, client_id: str | None, ip: str | None) -> dict[str, str | None]:
    named = {"user": user, "client-id": client_id, "ip": ip}
    entity = {kind: None if name == DEFAULT else name for kind, name in named.items() if name is not None}
    if not entity:
        raise CommandFailed("name whose quota it is: --user, --client-id or --ip")
    return entity


def _shown(entity: dict[str, str | None], kind: str) -> str:
    return "" if kind not in entity else entity[kind] or DEFAULT
