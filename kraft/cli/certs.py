"""`kraft certs`: a CA, and certificates for the nodes and users of a cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from kraft.cli.options import JsonOption
from kraft.cli.output import write, write_json
from kraft.config.parse import parse_config
from kraft.launcher.certificates import CA_KEY_FILE, DAYS, create
from kraft.launcher.configuration import BUILT_IN, read_config

app = typer.Typer(help="Make a CA and certificates for TLS.", no_args_is_help=True)


@app.callback()
def _certs() -> None:
    """Make a CA and certificates for TLS."""


@app.command("create")
def create_certificates(
    config_file: Annotated[
        str | None, typer.Argument(metavar="[CLUSTER.TOML]", help="Default: the cluster of `kraft up`.")
    ] = None,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Folder of the certificates.")] = "certs",
    days: Annotated[int, typer.Option(min=1, max=3_650, help="How long they are valid.")] = DAYS,
    user: Annotated[
        list[str] | None, typer.Option("--user", metavar="NAME", help="A certificate for a client; may be repeated.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a CA, or use that of the folder, and a certificate for each node of cluster.toml."""
    file = config_file or BUILT_IN
    parsed = parse_config(read_config(file), file=file)
    made = create(parsed, out, days=days, users=user or ())
    if as_json:
        write_json(made)
        return
    for name, path in made.items():
        write(f"{name}: {path}")
    write(f"Keep {out}/{CA_KEY_FILE} away from the nodes. For cluster.toml, of all nodes and of each node:")
    write(f'  settings.ssl.truststore.location = "{made["ca"]}"')
    for node in parsed.nodes:
        write(f'  settings.ssl.keystore.location = "{made[f"node {node.id}"]}"   # node {node.id}')
    write('  kafka_protocol = "SSL"; rest_protocol = "SSL"   # each node')
