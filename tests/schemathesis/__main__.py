"""Starts a strict node on free ports, has schemathesis ask it for all that its OpenAPI document describes, stops it.

    python -m tests.schemathesis [options of `schemathesis run`]

Exit code 0 only when every check passed. `schemathesis.toml` beside this file has the checks and what is excluded.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from openapi_spec_validator import OpenAPIV31SpecValidator

HERE = Path(__file__).parent
RUN_SECONDS_MAX = 300
CLUSTER = """\
strict = true
[settings]
default.replication.factor = 1
min.insync.replicas = 1
group.initial.rebalance.delay.ms = 0
offsets.topic.replication.factor = 1
[[nodes]]
id = 1
"""
KRAFT = (sys.executable, "-m", "kraft")


def main(options: list[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the node is stopped also then
    with tempfile.TemporaryDirectory(prefix="kraft-schemathesis-") as folder:
        config, data = Path(folder, "cluster.toml"), Path(folder, "data")
        config.write_text(CLUSTER, encoding="utf-8")
        try:
            up = subprocess.run(
                [*KRAFT, "up", str(config), "--free-ports", "--detach", "--no-console", "--data", str(data), "--json"],
                check=True, stdout=subprocess.PIPE, timeout=60,
            )  # fmt: skip
            cluster = json.loads(up.stdout)
            return _ask(cluster["nodes"][0]["rest"], cluster["cluster_id"], options, folder)
        finally:
            subprocess.run([*KRAFT, "down", "--data", str(data)], check=False, stdout=subprocess.DEVNULL, timeout=60)


def _ask(url: str, cluster_id: str, options: list[str], folder: str) -> int:
    member_id = _make_resources(url, cluster_id)
    document = _request("GET", f"{url}/openapi.json")
    OpenAPIV31SpecValidator(document).validate()
    schemathesis = str(Path(sys.executable).with_name("schemathesis"))
    command = [
        os.environ.get("SCHEMATHESIS", schemathesis),
        *("--config-file", str(HERE / "schemathesis.toml")),
        *("run", f"{url}/openapi.json", *options),
    ]
    environment = {**os.environ, "KRAFT_CLUSTER_ID": cluster_id, "KRAFT_URL": url, "KRAFT_MEMBER_ID": member_id}
    environment["SCHEMATHESIS_HOOKS"] = str(HERE / "hooks.py")
    return subprocess.run(command, check=False, env=environment, cwd=folder, timeout=RUN_SECONDS_MAX).returncode


def _make_resources(url: str, cluster_id: str) -> str:
    """What `schemathesis.toml` names. Returns the id of the only member of `described-group`."""
    v3, v2 = "application/json", "application/vnd.kafka.v2+json"
    below = f"{url}/v3/clusters/{cluster_id}"
    for name in ("contract", "doomed"):
        _request("POST", f"{below}/topics", {"topic_name": name, "partitions_count": 2}, v3)
    records = {"records": [{"key": number, "value": {"number": number}} for number in range(20)]}
    _request("POST", f"{url}/topics/contract/partitions/0", records, "application/vnd.kafka.json.v2+json")
    for group, instance in (
        ("contract", "contract"), ("contract", "doomed"), ("contract", "unsubscribed"), ("described", "described"),
    ):  # fmt: skip
        path, name = f"{url}/consumers/{group}-group", f"{instance}-instance"
        _request("POST", path, {"name": name, "format": "json", "auto.offset.reset": "earliest"}, v2)
        _request("POST", f"{path}/instances/{name}/subscription", {"topics": ["contract"]}, v2)
    path, both = f"{url}/consumers/contract-group", [{"topic": "contract", "partition": number} for number in (0, 1)]
    _request("POST", path, {"name": "assigned-instance"}, v2)
    _request("POST", f"{path}/instances/assigned-instance/assignments", {"partitions": both}, v2)
    described = f"{url}/consumers/described-group/instances/described-instance"
    _request("GET", f"{described}/records?timeout=5000")
    _request("POST", f"{described}/offsets", {}, v2)
    _request("PUT", f"{below}/broker-configs/log.retention.ms", {"value": "600000"}, v3)
    members = _request("GET", f"{below}/consumer-groups/described-group/consumers")["data"]
    return str(members[0]["consumer_id"])


def _request(method: str, url: str, body: Any = None, content_type: str = "application/json") -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {} if data is None else {"Content-Type": content_type}
    request = urllib.request.Request(url, data=data, headers=headers, method=method)
    with urllib.request.urlopen(request, timeout=20) as response:
        text = response.read()
    return json.loads(text) if text else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
