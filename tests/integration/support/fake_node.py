"""A stand-in for a node: answers /readyz and /kraft/status after a delay, and obeys SIGTERM.

Environment: FAKE_READY_AFTER_S, FAKE_DIE (id of a node that ends at once), FAKE_STUBBORN (id that ignores SIGTERM),
FAKE_BUSY_STOP_S (processor time that each needs to stop).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def main() -> None:
    arguments = sys.argv[sys.argv.index("node") + 1 :]
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    node_id = options["--id"]
    if os.environ.get("FAKE_DIE") == node_id:
        sys.exit("the disk of this node is on fire")
    stubborn = os.environ.get("FAKE_STUBBORN") == node_id
    signal.signal(signal.SIGTERM, signal.SIG_IGN if stubborn else stop)
    if "--parent" in options:
        from kraft.launcher.foreground import end_with  # loads as much as a node needs

        end_with(int(options["--parent"]))
    config = tomllib.loads(Path(options["--config"]).read_text())
    ready_at = time.monotonic() + float(os.environ.get("FAKE_READY_AFTER_S", "0.1"))
    serve(config, int(node_id), ready_at)


def stop(*_: object) -> None:
    end_s = time.process_time() + float(os.environ.get("FAKE_BUSY_STOP_S", "0"))
    while time.process_time() < end_s:
        pass
    sys.exit(0)


def serve(config: dict, node_id: int, ready_at: float) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            ready = time.monotonic() >= ready_at
            if self.path == "/readyz":
                self.answer(200 if ready else 503, {"reason": "the fake is warming up"})
            elif self.path == "/kraft/status":
                self.answer(200, status(config, node_id))
            else:
                self.answer(404, {"error_code": 404, "message": "the fake has no such page"})

        def answer(self, code: int, document: object) -> None:
            body = json.dumps(document).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    port = next(node["rest_port"] for node in config["nodes"] if node["id"] == node_id)
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


def status(config: dict, node_id: int) -> dict:
    nodes = [
        {
            "id": node["id"],
            "roles": node["roles"],
            "state": "active",
            "rest": "",
            "kafka": "",
            "quorum": "",
            "rack": None,
        }
        for node in config["nodes"]
    ]
    partitions = {"total": 0, "under_replicated": 0, "offline": 0, "under_min_isr": 0}
    return {
        "cluster_id": config["cluster_id"], "node_id": node_id, "controller_id": 1, "controller_epoch": 7,
        "metadata_offset": 42, "nodes": nodes, "partitions": partitions, "topics": 0,
    }  # fmt: skip


if __name__ == "__main__":
    main()
